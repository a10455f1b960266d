"""The composition root: what cannot be used is named, with the setting that names it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mta.app import ROLES, CannotStart, ask_status, server_tls
from mta.config import Config
from mta.lab.ca import PrivateCa
from mta.supervise import ROLES as SUPERVISED


def config(certificate: Path, key: Path) -> Config:
    return Config.model_validate({"hostname": "mx.test", "tls": {"certificate": certificate, "key": key}})


def test_a_certificate_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    ours, other = ca.issue("mx.test"), ca.issue("other.test")
    assert server_tls(config(ours.certificate, ours.key)) is not None
    private = ec.generate_private_key(ec.SECP256R1())
    locked = tmp_path / "locked.key"
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    locked.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, encryption))
    missing = tmp_path / "missing.pem"
    for certificate, key, why in (
        (missing, ours.key, f"tls.certificate {missing}: No such file or directory"),
        (ours.certificate, missing, f"tls.key {missing}: No such file or directory"),
        (ours.certificate, other.key, "KEY_VALUES_MISMATCH"),
        (ours.certificate, locked, f"tls.key {locked}: the key has a passphrase"),
    ):
        with pytest.raises(CannotStart) as refused:
            server_tls(config(certificate, key))
        assert why in str(refused.value)


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
    ],
)
def test_a_process_imports_no_more_than_it_needs(starts_with: str, has_no_use_for: tuple[str, ...]) -> None:
    """They all start at once: what each imports is what a start takes."""
    script = f"import sys, {starts_with}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & set(has_no_use_for) == set()
