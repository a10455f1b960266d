"""The composition root: what cannot be used is named, with the setting that names it."""

import asyncio
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from mta.app import ROLES, ask_status, own_certificate
from mta.config import Config
from mta.lab.ca import PrivateCa
from mta.parts import CannotStart
from mta.supervise import ROLES as SUPERVISED


def test_a_certificate_that_cannot_be_used_is_no_start(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    ours, other = ca.issue("mx.test"), ca.issue("other.test")
    for key, refused in ((ours.key, False), (other.key, True)):
        config = Config.model_validate({"hostname": "mx.test", "tls": {"certificate": ours.certificate, "key": key}})
        with pytest.raises(CannotStart, match="KEY_VALUES_MISMATCH") if refused else nullcontext():
            own_certificate(config)


@pytest.mark.parametrize("answer", [b"", b"garbage\n", b'{"error": "no"}\n', b'{"ok": 1}\n'])
async def test_a_role_that_does_not_say_how_it_is_counts_as_down(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "delivery.sock"

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        status = await ask_status(path)
    assert (status.role, status.state) == ("delivery", "down")


def test_serve_starts_every_role() -> None:
    assert sorted(SUPERVISED) == sorted(ROLES)


@pytest.mark.parametrize(
    ("starts_with", "has_no_use_for"),
    [
        ("mta.cli.serve", ("falcon", "uvicorn", "dns", "mta.app")),
        ("mta.process", ("falcon", "uvicorn", "dns", "mta.delivery")),
        ("mta.spool.lmdb.apart", ("pydantic", "yaml")),
        ("mta.delivery.signatory", ("pydantic", "yaml")),
        ("mta.events.views.apart", ("pydantic", "yaml")),
    ],
)
def test_a_process_imports_no_more_than_it_needs(starts_with: str, has_no_use_for: tuple[str, ...]) -> None:
    """They all start at once: what each imports is what a start takes."""
    script = f"import sys, {starts_with}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & set(has_no_use_for) == set()
