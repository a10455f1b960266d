"""The OpenAPI document is true: schemathesis finds no 5xx, no status and no body that it does not tell of.

`FAIRLEAD_SCHEMATHESIS_SECONDS` says for how long it looks (scripts/campaign schemathesis), `FAIRLEAD_CRASH_SEED` with
what.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.interop.installation import DOMAIN, TENANT, Installation

SECONDS = int(os.environ.get("FAIRLEAD_SCHEMATHESIS_SECONDS", "45"))
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "ignored_auth"),
)


SINGLE_KEYS = r"keys/\{"  # paths of one key: whoever asks there may end its own, and hear nothing but 401 from then on


@pytest.fixture
def key(site: Installation) -> str:
    """A key that is good for all that a tenant may do."""
    scopes = [word for scope in ("send", "read", "manage") for word in ("--scope", scope)]
    return str(site.relay.tell("keys", "create", "--tenant", TENANT, *scopes)["key"])


def look(site: Installation, key: str, folder: Path, seconds: int, *paths: str) -> str:
    """Have it look; return the line of figures, and fail with what it found."""
    seed = int(os.environ.get("FAIRLEAD_CRASH_SEED") or random.randrange(1 << 32))
    settings = folder / "schemathesis.toml"
    settings.write_text(
        f'[auth.openapi.bearer]\nbearer = "{key}"\n'
        f'[auth.openapi.basic]\nusername = "api"\npassword = "{key}"\n'
        f'[auth.openapi.serverToken]\napi_key = "{key}"\n'
    )
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(settings), "run"),
        *(f"http://127.0.0.1:{site.ports.http}/openapi.json", "--checks", ",".join(CHECKS), "--max-time", str(seconds)),
        *("--seed", str(seed), "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"),
        *("--no-color", "--continue-on-failure", *paths),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, cwd=folder)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout[-20_000:]}{done.stderr[-5_000:]}"
    return f"schemathesis: seconds={seconds} seed={seed} {' '.join(paths)}"


def test_what_it_finds(site: Installation, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = look(site, key, tmp_path, SECONDS, "--exclude-path-regex", SINGLE_KEYS)
    url, headers = f"http://127.0.0.1:{site.ports.http}/v1/mail", {"Authorization": f"Bearer {key}"}
    assert requests.get(url, headers=headers, timeout=30).status_code == 200  # its key was good to the end
    with capsys.disabled():
        print(f"\n{line}")


def test_what_it_finds_of_single_keys(
    site: Installation, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = look(site, key, tmp_path, max(10, SECONDS // 6), "--include-path-regex", SINGLE_KEYS)
    with capsys.disabled():
        print(f"\n{line}")


def test_what_would_become_of_a_message(site: Installation, key: str) -> None:
    mail = {"from": f"a@{DOMAIN}", "to": ["ann@example.test"], "text": "Hello", "dry_run": True}
    url, headers = f"http://127.0.0.1:{site.ports.http}/v1/mail", {"Authorization": f"Bearer {key}"}
    told = requests.post(url, json=mail, headers=headers, timeout=30).json()
    assert told["trouble"] == ""
    assert told["signature"] == {"domain": DOMAIN, "selectors": ["rsa2048", "ed25519"], "why": ""}
    assert told["alignment"]["dkim_aligned"] is True
    assert [each["domain"] for each in told["destinations"]] == ["example.test"]
