"""Haraka, as it did best: two processes, and a plugin that takes all mail and names the next hop.

It comes from npm (`scripts/setup bench`) with those of its dependencies that were current when it was.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from mta.config import HostPort
from tests.interop.peers import disk_directory
from tests.interop.processes import greets, running, wait_until
from tests.interop.relay import ROOT

PACKAGE = ROOT / ".bench/haraka/node_modules/Haraka"
_PLUGIN = """\
exports.hook_connect = (next, connection) => { connection.relaying = true; next() }
exports.hook_lookup_rdns = (next) => next(OK, 'load.test')
exports.hook_rcpt = (next) => next(OK)
exports.hook_get_mx = (next) => { HAND_ON }
"""
_SIGNING = """\
[sign]
enabled = true
selector = s1
domain = {domain}
headers = From, To, Subject, Date, Message-ID
[canon]
body = relaxed
[verify]
enabled = false
"""


@contextmanager
def haraka(address: HostPort, next_hop: HostPort, *, holds: bool, signs: str) -> Iterator[tuple[int, str]]:
    """Run Haraka, which signs for the domain `signs` if there is one; gives its process and the key's TXT record.

    Where mail is to wait, the plugin never says where it is to go, which costs nothing.
    """
    with disk_directory("haraka") as directory:
        config = directory / "config"
        shutil.copytree(PACKAGE / "config", config)
        (directory / "queue").mkdir()
        (directory / "plugins").mkdir()
        mx = f"next(OK, {{ exchange: '{next_hop.host}', port: {next_hop.port}, priority: 0 }})"
        (directory / "plugins/bench.js").write_text(_PLUGIN.replace("HAND_ON", "" if holds else mx))
        files = {
            "smtp.ini": f"listen={address}\nnodes=2\n",
            "outbound.ini": "local_mx_ok=true\nenable_tls=false\n",
            "plugins": "dkim\nbench\n" if signs else "bench\n",
            "me": "haraka.test\n",
        }
        record = ""
        if signs:
            files["dkim.ini"] = _SIGNING.format(domain=signs)
            files["dkim.private.key"], record = _make_key()
        for name, text in files.items():
            (config / name).write_text(text)
        log = directory / "log"
        with running([PACKAGE / "bin/haraka", "-c", directory], log) as process:
            wait_until(lambda: greets(address.host, address.port), process, log)
            yield process.pid, record


def _make_key() -> tuple[str, str]:
    private = _openssl("genrsa", "2048")
    lines = _openssl("rsa", "-pubout", given=private).splitlines()[1:-1]
    return private, f"v=DKIM1; k=rsa; p={''.join(lines)}"


def _openssl(*arguments: str, given: str = "") -> str:
    done = subprocess.run(["openssl", *arguments], input=given, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout
