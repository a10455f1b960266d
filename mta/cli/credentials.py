"""`fairlead credentials`: user names and passwords for SMTP submission."""

import click

from mta.accounts import credentials as accounts
from mta.cli.once import ONCE
from mta.cli.output import Column
from mta.cli.session import Session, Stop, with_spool

_COLUMNS = (
    Column("user", "USER", 28),
    Column("tenant", "TENANT", 16),
    Column("created_at", "CREATED", 20),
    Column("revoked_at", "REVOKED", 20),
)


@click.group()
def credentials() -> None:
    """Create, list and revoke SMTP credentials."""


@credentials.command()
@click.option("--tenant", required=True, help="Whose mail the user sends.")
@click.option("--user", required=True, help="The name to log in with.")
@ONCE
@with_spool
async def create(session: Session, tenant: str, user: str, once: float) -> None:
    """Create a user and print the password: nobody can see it again. A user that exists stays as it is."""
    async with session.doing("credentials.create", tenant, user, once=once or None) as underway:
        credential, password = await accounts.create(session.spool, tenant, user, session.clock.now(), once)
        underway.result = "done" if password else "unchanged"
    if password is None:
        session.out.note(f"user {user} exists; its password cannot be shown again (to change it, revoke and create)")
    text = f"user: {credential.user}" + (f"\npassword: {password}" if password else "")
    session.out.record({"user": credential.user, "password": password}, text)


@credentials.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List all users, the revoked ones too."""
    for each in await accounts.list_all(session.spool):
        record = {
            "user": each.user,
            "tenant": each.tenant,
            "created_at": each.created_at,
            "revoked_at": each.revoked_at or None,
            "once": each.once,
        }
        session.out.row(record, _COLUMNS)


@credentials.command()
@click.argument("user")
@with_spool
async def revoke(session: Session, user: str) -> None:
    """Make the password of USER good for nothing, at once."""
    credential = await accounts.find(session.spool, user)
    if credential is None:
        raise Stop(f"there is no user {user[:64]!r}")
    async with session.doing("credentials.revoke", credential.tenant, user):
        await accounts.revoke(session.spool, user, session.clock.now())
    session.out.record({"user": user}, f"user {user} revoked")
