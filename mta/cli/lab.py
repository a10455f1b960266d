"""`fairlead lab`: the whole relay in a laboratory on loopback, to be tried in a minute; nothing leaves the machine.

The laboratory runs in this process, the relay as `fairlead serve` would run it. In the directory: `mail/` (what
arrived), `relay.log`, `fairlead.yaml` (for the other commands), `state/` (of the relay, kept for the next time).
"""

import asyncio
import fcntl
import json
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from pathlib import Path

import click

from mta import logs
from mta.accounts import dkim_keys, domains, keys, tenants
from mta.accounts.scopes import SCOPES
from mta.cli.dkim import sealing_key
from mta.cli.output import printable
from mta.cli.session import Stop, become_owner
from mta.clock import SystemClock
from mta.config import Config, load
from mta.exits import Exit
from mta.lab.laboratory import Laboratory, RelayPorts, lab_config
from mta.lab.mailbox import Captured
from mta.notify import Notifier
from mta.spool.lmdb.opening import open_spool
from mta.supervise import Supervisor, role_children

TENANT = "lab"
SENDER = "sender.test"  # a domain of the tenant, signed with a key of each kind
_FOREVER = 1e9  # seconds
_TAIL = 2000  # octets of the log that are shown when the relay fails


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state", "fairlead-lab"),
    show_default="fairlead-lab in $XDG_STATE_HOME",
    help="Where everything is kept.",
)
def lab(directory: Path) -> int:
    """Run the relay in a laboratory on loopback.

    Prints an SMTP and an HTTP example that can be pasted, then a line for each message that arrives.
    Any domain under .test receives; the local part says how: ok, tempfail-2, greylist, reject, full, slow,
    drop, tarpit.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    become_owner(directory)
    with _alone(directory):
        return asyncio.run(_run(directory))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep a second laboratory out of the directory."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stop(f"another laboratory runs in {directory}", Exit.BUSY) from None
        yield
    finally:
        os.close(handle)


async def _run(directory: Path) -> Exit:
    clock = SystemClock()
    laboratory = Laboratory(directory, clock)
    await laboratory.start()
    try:
        ports = RelayPorts(*(_free(port) for port in RelayPorts()))
        config_file = directory / "fairlead.yaml"
        config_file.write_text(lab_config(laboratory, ports, TENANT), encoding="utf-8")
        config = load(config_file)
        api_key = await _prepare(config, laboratory)
        with _errors_to(directory / "relay.log"):
            logs.configure(config.log, "lab")
            notifier = _Listener()
            supervisor = Supervisor(role_children(config_file, config.roles), clock, notifier)
            showing = asyncio.create_task(_show(laboratory, notifier.all_ready, ports, api_key))
            try:
                code = await supervisor.run()
            finally:
                showing.cancel()
                await asyncio.wait([showing])
    finally:
        await laboratory.close()
    if code is not Exit.OK:
        raise Stop(f"the relay ended: {_tail(directory / 'relay.log')}", code)
    return code


def _free(port: int) -> int:
    """Return the port, or one of the system's choice where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _prepare(config: Config, laboratory: Laboratory) -> str:
    """Make a tenant who may send as SENDER, publish its DKIM keys, and return an API key of its own."""
    clock = SystemClock()
    spool = open_spool(config, clock)
    try:
        now = clock.now()
        await tenants.create(spool, TENANT, now)
        await domains.add(spool, SENDER, TENANT, now)
        for algorithm in dkim_keys.Algorithm:
            record = await dkim_keys.create(spool, SENDER, algorithm.value, algorithm, sealing_key(config), now)
            laboratory.zone.set_txt(record.name, record.value)
        for former in await keys.list_all(spool):
            await keys.revoke(spool, former.id, now)
        return (await keys.create(spool, TENANT, SCOPES, now))[1]
    finally:
        await spool.close()


@contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Let standard error, of our children too, go to a file: the terminal is for what the user does."""
    kept = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _tail(path: Path) -> str:
    text = path.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip()
    return f"{printable(text.splitlines()[-1]) if text else ''} (see {path})"


class _Listener(Notifier):
    """Hears that all roles are ready, where others tell systemd."""

    def __init__(self) -> None:
        super().__init__({})
        self.all_ready = asyncio.Event()

    def ready(self) -> None:
        """Let the user begin."""
        self.all_ready.set()


async def _show(laboratory: Laboratory, ready: asyncio.Event, ports: RelayPorts, api_key: str) -> None:
    await ready.wait()
    click.echo(introduction(laboratory.directory, ports, api_key, curl=shutil.which("curl") is not None))
    shown = 0
    while True:
        arrived = await laboratory.wait_for(shown + 1, timeout=_FOREVER)
        new = arrived[shown - laboratory.total :]
        shown = laboratory.total
        for captured in new:
            click.echo(await asyncio.to_thread(arrival_line, laboratory, captured))


def arrival_line(laboratory: Laboratory, captured: Captured) -> str:
    """Tell of a message that arrived: who, what, and whether its signatures hold."""
    message = message_from_bytes(captured.content, policy=policy.compat32)
    recipients = ", ".join(each.address for each in captured.envelope.recipients)
    signatures = " ".join(map(str, laboratory.verify(captured))) or "not signed"
    return printable(
        f"arrived: from <{captured.envelope.sender}> to {recipients}, {message.get('Subject', 'no subject')!s}, "
        f"{captured.tls or 'no TLS'}, {signatures}"
    )


_MAIL = f"""From: Hello <hello@{SENDER}>
To: ok@example.test
Subject: Over SMTP

Hello."""
_REQUEST = json.dumps(
    {
        "personalizations": [{"to": [{"email": "ok@example.test"}]}],
        "from": {"email": f"hello@{SENDER}", "name": "Hello"},
        "subject": "Over HTTP",
        "content": [{"type": "text/plain", "value": "Hello."}],
    }
)


def introduction(directory: Path, ports: RelayPorts, api_key: str, *, curl: bool) -> str:
    """Say what can be done, with examples for the shell: in curl, or in Python where there is none."""
    smtp, http = _curl(ports, api_key) if curl else _python(ports, api_key)
    return f"""The relay is up; nothing leaves this machine. Stop it with Ctrl-C.

Send a message over SMTP:

{smtp}

Send a message over HTTP:

{http}

Any address under .test receives. The local part says how: ok, tempfail-2, greylist, reject, full, slow, drop, tarpit.
What arrives is told here, and kept in {directory}/mail
The log of the relay is {directory}/relay.log
Submission (user apikey, password {api_key}): port {ports.submission} with STARTTLS, {ports.submissions} with TLS
The other commands: {Path(sys.executable).with_name("fairlead")} -c {directory}/fairlead.yaml events --follow
"""


def _curl(ports: RelayPorts, api_key: str) -> tuple[str, str]:
    return (
        f"""curl -sS --crlf smtp://127.0.0.1:{ports.relay} -T - \\
  --mail-from hello@{SENDER} --mail-rcpt ok@example.test <<'END'
{_MAIL}
END""",
        f"""curl -sS -i http://127.0.0.1:{ports.http}/v3/mail/send -H 'Authorization: Bearer {api_key}' \\
  -H 'Content-Type: application/json' -d '{_REQUEST}'""",
    )


def _python(ports: RelayPorts, api_key: str) -> tuple[str, str]:
    python = shlex.quote(sys.executable)
    return (
        f"""{python} - <<'END'
import smtplib
mail = {_MAIL!r}
smtplib.SMTP("127.0.0.1", {ports.relay}).sendmail("hello@{SENDER}", "ok@example.test", mail)
END""",
        f"""{python} - <<'END'
from urllib.request import Request, urlopen
headers = {{"Authorization": "Bearer {api_key}", "Content-Type": "application/json"}}
answer = urlopen(Request("http://127.0.0.1:{ports.http}/v3/mail/send", {_REQUEST.encode()!r}, headers))
print(answer.status, answer.headers["X-Message-Id"])
END""",
    )
