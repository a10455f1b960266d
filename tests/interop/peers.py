"""Debian's Postfix and OpenDKIM, each instance with directories, ports and settings of its own.

Nothing of the system's configuration is read or changed. Postfix's master and OpenDKIM as its milter need
root, who alone may start processes of other users.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mta.config import HostPort
from mta.lab.ca import ServerCertificate
from tests.interop.processes import greets, running, wait_until

_MASTER = Path("/usr/lib/postfix/sbin/master")
_DISK = Path("/var/tmp")  # a disk where /tmp may be memory, and open to the users that daemons become
_QUEUE_DIRECTORIES = "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace"
_SERVICES = """\
pickup     unix       n - n 60    1   pickup
cleanup    unix       n - n -     0   cleanup
qmgr       unix       n - n 300   1   qmgr
tlsmgr     unix       - - n 1000? 1   tlsmgr
rewrite    unix       - - n -     -   trivial-rewrite
bounce     unix       - - n -     0   bounce
defer      unix       - - n -     0   bounce
trace      unix       - - n -     0   bounce
verify     unix       - - n -     1   verify
proxymap   unix       - - n -     -   proxymap
smtp       unix       - - n -     -   smtp
relay      unix       - - n -     -   smtp
error      unix       - - n -     -   error
retry      unix       - - n -     -   error
virtual    unix       - n n -     -   virtual
anvil      unix       - - n -     1   anvil
scache     unix       - - n -     1   scache
postlog    unix-dgram n - n -     1   postlogd
"""
_SETTINGS = {
    "compatibility_level": "3.6",
    "inet_protocols": "ipv4",
    "alias_maps": "",
    "mydestination": "",
    "mynetworks": "127.0.0.0/8",
    "local_header_rewrite_clients": "",  # headers are to stay as they come
    "line_length_limit": "65536",
    "smtp_line_length_limit": "0",
    "smtputf8_enable": "yes",
    "smtpd_tls_security_level": "none",
    "smtp_tls_security_level": "none",
    "message_size_limit": "50000000",
}


class Postfix(NamedTuple):
    """A Postfix that runs: where it takes mail, its directory, and its master's process."""

    address: HostPort
    directory: Path
    pid: int

    @property
    def socket_address(self) -> tuple[str, int]:
        """Its address for clients."""
        return self.address.host, self.address.port

    @property
    def maildir(self) -> Path:
        """Where `receiving_postfix` puts mail."""
        return self.directory / "data/box"


@contextmanager
def disk_directory(name: str) -> Iterator[Path]:
    """Make a directory on a disk for as long as it is needed, which every user can enter."""
    with tempfile.TemporaryDirectory(prefix=f"fairlead-{name}-", dir=_DISK, ignore_cleanup_errors=True) as made:
        directory = Path(made)
        directory.chmod(0o755)
        yield directory


@contextmanager
def postfix(address: HostPort, settings: Mapping[str, str]) -> Iterator[Postfix]:
    """Run a Postfix that takes mail at `address`; `settings` are of its main.cf.

    In them `{directory}` is its directory, and `{user}` the number of the user who owns `data` in it.
    """
    with disk_directory("postfix") as directory:
        _write_configuration(directory, address, settings)
        log = directory / "log"
        # "-d": it stays our child. What it would do besides, `postfix check`, takes two seconds.
        with running([_MASTER, "-c", directory / "config", "-d"], directory / "output") as process:
            wait_until(lambda: greets(address.host, address.port), process, log)
            yield Postfix(address, directory, process.pid)


@contextmanager
def receiving_postfix(address: HostPort, hostname: str, certificate: ServerCertificate) -> Iterator[Postfix]:
    """Run a Postfix that offers STARTTLS with a certificate, and puts all mail into one maildir."""
    settings = {
        "myhostname": hostname,
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": f"{certificate.key}, {certificate.certificate}",
        "virtual_mailbox_domains": "static:all",
        "virtual_mailbox_maps": "static:box/",
        "virtual_mailbox_base": "{directory}/data",
        "virtual_mailbox_limit": "0",
        "virtual_uid_maps": "static:{user}",
        "virtual_gid_maps": "static:{user}",
    }
    with postfix(address, settings) as running:
        yield running


def _write_configuration(directory: Path, address: HostPort, settings: Mapping[str, str]) -> None:
    for name in ("config", "data", "queue/pid", *(f"queue/{each}" for each in _QUEUE_DIRECTORIES.split())):
        (directory / name).mkdir(parents=True)
        if name not in ("config", "queue/pid"):
            shutil.chown(directory / name, "postfix")
    own = {
        "queue_directory": str(directory / "queue"),
        "data_directory": str(directory / "data"),
        "maillog_file": str(directory / "log"),
        "maillog_file_prefixes": str(directory),
    }
    lines = [f"{name} = {value}" for name, value in (_SETTINGS | own | dict(settings)).items()]
    user = str((directory / "data").stat().st_uid)
    main = "\n".join([*lines, ""]).replace("{directory}", str(directory)).replace("{user}", user)
    (directory / "config/main.cf").write_text(main)
    (directory / "config/master.cf").write_text(f"{address} inet n - n - 100 smtpd\n{_SERVICES}")


class Milter(NamedTuple):
    """An OpenDKIM that runs; `address` is for smtpd_milters, `record` the text that its key is published with."""

    address: str
    pid: int
    record: str


@contextmanager
def signing_milter(domain: str) -> Iterator[Milter]:
    """Run OpenDKIM as a milter that signs all mail of a domain with RSA-2048."""
    with disk_directory("opendkim") as directory:
        make_key = ["opendkim-genkey", "-b", "2048", "-s", "s1", "-d", domain, "-D", str(directory)]
        subprocess.run(make_key, check=True, capture_output=True, timeout=30)
        settings = {
            "Mode": "s",
            "Domain": domain,
            "Selector": "s1",
            "KeyFile": str(directory / "s1.private"),
            "Canonicalization": "relaxed/relaxed",
            "Socket": f"local:{directory}/socket",
            "UMask": "000",
            # below a directory that everybody can write to, as temporary ones are
            "RequireSafeKeys": "no",
        }
        (directory / "opendkim.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        log = directory / "log"
        with running(["opendkim", "-f", "-x", directory / "opendkim.conf"], log) as process:
            wait_until((directory / "socket").exists, process, log)
            record = "".join(re.findall(r'"([^"]*)"', (directory / "s1.txt").read_text()))
            yield Milter(f"unix:{directory}/socket", process.pid, record)


class Finding(NamedTuple):
    """What OpenDKIM says of one signature."""

    result: str
    domain: str
    algorithm: str
    selector: str


def opendkim_verify(content: bytes, records: Mapping[str, str], directory: Path) -> list[Finding]:
    """Have OpenDKIM verify a message; `records` are TXT records by name, instead of DNS."""
    (directory / "records").write_text("".join(f"{name} {value}\n" for name, value in records.items()))
    (directory / "opendkim.conf").write_text(f"Mode v\nTestDNSData file:{directory}/records\n")
    (directory / "message").write_bytes(content)
    command = ["opendkim", "-x", f"{directory}/opendkim.conf", "-vv", "-t", f"{directory}/message"]
    said = subprocess.run(command, check=True, capture_output=True, timeout=30, env={**os.environ, "LC_ALL": "C"})
    pattern = r"dkim=(\w+).*? header\.d=(\S+).*? header\.a=(\S+) header\.s=(\S+)"
    return [Finding(*found) for found in re.findall(pattern, said.stdout.decode(errors="replace"))]
