"""`fairlead dkim`: keys that sign for sender domains (RFC 6376, RFC 8463).

Making one needs the public half of the sealing pair only; the first one makes the pair.
"""

import click
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from mta.accounts import dkim_keys
from mta.cli.session import Session, with_spool
from mta.config import Config

_ALGORITHMS = [each.value for each in dkim_keys.Algorithm]
_STRING_OCTETS = 255  # of one character-string in a TXT record, RFC 1035 3.3


@click.group()
def dkim() -> None:
    """Create DKIM keys."""


@dkim.command()
@click.argument("domain")
@click.option("--selector", required=True, help="The name of the key within the domain.")
@click.option("--algorithm", type=click.Choice(_ALGORITHMS), default="rsa2048", show_default=True)
@with_spool
async def create(session: Session, domain: str, selector: str, algorithm: str) -> None:
    """Create a key for DOMAIN and print the DNS record to publish, which any later call prints again.

    Mail is signed with it from now on, so publish the record at once, or before you add a second selector.
    """
    record = await dkim_keys.create(
        session.spool,
        domain,
        selector,
        dkim_keys.Algorithm(algorithm),
        sealing_key(session.config),
        session.clock.now(),
    )
    shown = {"name": record.name, "type": record.type, "value": record.value}
    session.out.record(shown, zone_line(record.name, record.type, record.value))


def sealing_key(config: Config) -> X25519PublicKey:
    """Return the public half of the sealing pair, making the pair if there is none yet."""
    if config.dkim_public_file.exists():
        return dkim_keys.load_public_key(config.dkim_public_file)
    return dkim_keys.load_or_create_sealing_key(config.dkim_key_file, config.dkim_public_file).public_key()


def zone_line(name: str, kind: str, value: str) -> str:
    """Write a record for a zone file (RFC 1035 5.1), its text in strings of at most 255 octets."""
    escaped = [each.replace("\\", "\\\\").replace('"', '\\"') for each in _pieces(value)]
    strings = " ".join(f'"{each}"' for each in escaped)
    return f"{name}. IN {kind} " + (f"( {strings} )" if len(escaped) > 1 else strings)


def _pieces(value: str) -> list[str]:
    return [value[start : start + _STRING_OCTETS] for start in range(0, len(value), _STRING_OCTETS)] or [""]
