"""docs/events.md and the code say the same, and the script that proves it can tell when they do not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = ROOT / "docs" / "events.md"


def check(*page: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_events", *page], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_the_page_is_true() -> None:
    assert check() == (0, "")


@pytest.mark.parametrize(
    ("there", "instead", "problem"),
    [
        ("| `deferred` | recipient", "| deferred | recipient", "type deferred is not documented"),
        ("| `expired` | recipient", "| `lost` | recipient", "type lost is not in the code"),
        ("| `dsn` | dsn_sent", "| dsn | dsn_sent", "field dsn is not documented"),
        ("| `retry_at` | deferred", "| `retry_at` | bounced", "example deferred: retry_at is not in deferred"),
        ("| `client` | accepted", "| `client` | acepted", "field client: there is no type acepted"),
        ('"size":2317', '"size":"2317"', "example accepted: Expected `int`, got `str`"),
        ('"size":2317', '"size":2317,"policy":"dane"', "example accepted: policy is not in accepted"),
        ('"type":"dropped"', '"type":"delivered"', "type dropped has no example"),
        ('"delay":1.375,"retry_at"', '"tls":"","delay":1.375,"retry_at"', "example deferred: is shown as"),
    ],
)
def test_a_page_that_is_not(there: str, instead: str, problem: str, tmp_path: Path) -> None:
    page = tmp_path / "events.md"
    text = PAGE.read_text(encoding="utf-8")
    assert there in text
    page.write_text(text.replace(there, instead), encoding="utf-8")
    code, told = check(str(page))
    assert code == 1
    assert problem in told
