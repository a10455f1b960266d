"""testssl.sh against the submission listeners: nothing of medium severity or worse but the private CA's trust."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.interop.installation import Installation

_LIMIT = 120.0  # seconds; some 25 where nothing else runs
# protocols, kinds of ciphers, forward secrecy, preference, certificate, known attacks
_CHECKS = ("-p", "-s", "-f", "-P", "-S", "-U")
_BAD = ("MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")  # the last two: it could not look
# The laboratory's CA is in nobody's store, and has nobody to ask for what it revoked.
_PRIVATE_CA = {"cert_chain_of_trust", "cert_revocation"}
# Debian's OpenSSL lacks GOST; its s_client may be gone before the ticket of TLS 1.3 has come, which is to be tried.
_ITS_OWN = {"engine_problem", "sessionresumption_ticket", "sessionresumption_ID"}
_LOOKED_AT = {"SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cipherlist_aNULL", "cert_trust", "heartbleed", "ROBOT"}


class Finding(NamedTuple):
    """One line of testssl.sh's judgement."""

    id: str
    severity: str
    text: str


def examine(port: int, report: Path, *starttls: str) -> list[Finding]:
    """Have a listener examined."""
    command = ["testssl", "--quiet", "--warnings", "off", "--color", "0", "--ip", "one", "--jsonfile", str(report)]
    # certificates of the laboratory live for 30 days
    environ = {**os.environ, "DAYS2WARN1": "5", "DAYS2WARN2": "10"}
    done = subprocess.run(
        [*command, *starttls, *_CHECKS, f"127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT, env=environ,
    )  # fmt: skip
    assert report.exists(), done.stdout + done.stderr
    return [Finding(each["id"], each["severity"], each["finding"]) for each in json.loads(report.read_text())]


def test_nothing_is_found_at_the_submission_listeners(site: Installation, tmp_path: Path) -> None:
    """Both at once, on as many cores."""
    with ThreadPoolExecutor(2) as threads:
        starttls = threads.submit(examine, site.ports.submission, tmp_path / "starttls", "-t", "smtp")
        implicit = threads.submit(examine, site.ports.submissions, tmp_path / "implicit")
        for found in (starttls.result(), implicit.result()):
            assert {each.id for each in found} >= _LOOKED_AT
            assert [each for each in found if each.severity in _BAD and each.id not in _PRIVATE_CA | _ITS_OWN] == []
