"""The command line as such: quick, one line for an error, exit codes, never a traceback, never root by accident."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from mta.cli.output import Column, Printer, printable
from mta.cli.session import become_owner
from mta.mail.ids import message_id_bytes

FAIRLEAD = (sys.executable, "-m", "mta")
NOBODY = 65534


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FAIRLEAD, *arguments], capture_output=True, text=True, timeout=30, check=False, **more)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, mta.__main__ as m; m.main(['--help']); print(sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = said.splitlines()[-1]
    assert "sendmail" in said
    assert not [name for name in ("pydantic", "lmdb", "cryptography", "asyncio", "falcon") if f"'{name}'" in loaded]


@pytest.mark.parametrize("command", ["serve", "lab", "config", "tenants", "keys", "credentials", "domains", "dkim"])
def test_every_command_has_help(relay: Any, command: str) -> None:
    done = relay.run(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: fairlead {command}")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["tenants", "create"], "Missing argument 'TENANT'"),
        (["tenants", "list", "--no"], "No such option '--no'"),
        (["events", "--after", "-1"], "-1 is not in the range"),
        (["serve", "--role", "cook"], "'cook' is not one of"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(relay: Any, arguments: list[str], complaint: str) -> None:
    done = relay.run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert complaint.lower() in done.err.lower()
    assert done.err.startswith("fairlead: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["tenants"], ["queue"]])
def test_a_group_without_a_command_shows_its_help(relay: Any, arguments: list[str]) -> None:
    done = relay.run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: fairlead")


def test_ten_errors_in_the_configuration_are_ten_lines_and_exit_2(relay: Any) -> None:
    relay.config_file.write_text("\n".join(f"wrong{number}: 1" for number in range(10)) + "\n")
    done = relay.run("config", "check")
    lines = done.err.splitlines()
    assert done.code == 2
    assert lines == [f"fairlead: {relay.config_file}:{n + 1}:1: wrong{n}: no such setting" for n in range(10)]


def test_config_check_opens_what_the_settings_name(relay: Any, tmp_path: Path) -> None:
    assert relay.run("config", "check").out == "the configuration is good\n"
    assert not (tmp_path / "state").exists()
    (tmp_path / "cert.pem").write_text("no certificate")
    relay.config_file.write_text(
        f"state_dir: {tmp_path}/cert.pem/state\n"
        f"tls: {{certificate: {tmp_path}/cert.pem, key: {tmp_path}/none.pem}}\n"
        f"delivery: {{ca_file: {tmp_path}/cert.pem, shaping: {tmp_path}/cert.pem}}\n"
        f"routes: [{{domains: '*', relay: '127.0.0.1:25', username: u, password_file: {tmp_path}/none,\n"
        f"    tls: verify, ca_file: {tmp_path}/cert.pem}}]\n"
    )
    done = relay.run("config", "check")
    assert done.code == 2
    named = [line.split(": ")[1] for line in done.err.splitlines()]
    shaping = f"{tmp_path}/cert.pem:1:1"
    keys = ["routes.0.ca_file", "routes.0.password_file"]
    assert named == ["state_dir", "tls.certificate", "delivery.ca_file", shaping, *keys]


def test_a_configuration_named_by_the_environment_is_used(relay: Any) -> None:
    done = run("tenants", "list", env={**os.environ, "FAIRLEAD_CONFIG": "/nonexistent/f.yaml"})
    assert (done.returncode, done.stderr) == (
        2,
        "fairlead: /nonexistent/f.yaml:1:1: cannot be read: No such file or directory\n",
    )
    done = run("tenants", "list", "--json", env={**os.environ, "FAIRLEAD_CONFIG": str(relay.config_file)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_spool_of_another_version_is_refused(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    environment = lmdb.open(str(relay.config.spool_dir), lib_version=0, max_dbs=16, map_size=1 << 30)
    with environment.begin(write=True, db=environment.open_db(b"meta")) as txn:
        txn.put(b"version", b"99")
    environment.close()
    done = relay.run("tenants", "list")
    assert done.code == 2
    assert "format version b'99'" in done.err


def test_a_spool_without_its_key_is_not_given_a_new_one(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    relay.config.spool_key_file.unlink()
    done = relay.run("tenants", "list")
    assert (done.code, done.err) == (
        2,
        (
            f"fairlead: spool key {relay.config.spool_key_file}: "
            "missing, but there is a spool that it seals: restore the key\n"
        ),
    )
    assert not relay.config.spool_key_file.exists()


def test_a_reader_that_goes_away_gets_no_traceback(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    command = [*FAIRLEAD, "-c", str(relay.config_file), "tenants", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (1, b"")


def test_sendmail_gets_its_arguments_untouched(relay: Any) -> None:
    done = relay.run("sendmail", "-bs", "--", "--help")
    assert done.code == 64
    assert done.err.startswith("fairlead-sendmail: -bs: this sendmail does not speak SMTP")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_owner_of_the_state_directory_with_nothing_left(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    code = (
        "import os, pathlib, sys; from mta.cli.session import become_owner; become_owner(pathlib.Path(sys.argv[1]))\n"
        "print(os.getresuid(), os.getresgid(), os.getgroups())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{(NOBODY,) * 3} {(NOBODY,) * 3} {[NOBODY]}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is root's")
def test_root_makes_a_state_directory_that_is_missing(tmp_path: Path) -> None:
    become_owner(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_uid == os.geteuid() == 0


def test_a_state_directory_that_cannot_be_written_to_is_exit_2(relay: Any, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    done = relay.run("tenants", "list")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{tmp_path}/state" in done.err


def test_spool_init_makes_keys_and_changes_none(relay: Any) -> None:
    assert relay.run("spool", "init").code == 0
    files = (relay.config.spool_key_file, relay.config.dkim_key_file, relay.config.dkim_public_file)
    before = [path.read_bytes() for path in files]
    assert relay.run("spool", "init").code == 0
    assert [path.read_bytes() for path in files] == before
    assert {path.stat().st_mode & 0o777 for path in files[:2]} == {0o600}


def test_a_backup_can_be_verified_and_used(relay: Any, tmp_path: Path) -> None:
    relay.run("tenants", "create", "acme")
    message = relay.accept("a@one.test")
    done = relay.run("spool", "backup", str(tmp_path / "copy"), "--json")
    assert (done.code, set(done.record)) == (0, {"directory", "octets"})
    verified = relay.run("spool", "verify", str(tmp_path / "copy"), "--json")
    assert (verified.code, verified.record["ok"], verified.record["counts"]["messages"]) == (0, True, 1)
    again = relay.run("spool", "backup", str(tmp_path / "copy"))
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert relay.run("queue", "drop", message).code == 0
    assert relay.run("spool", "verify").code == 0
    assert relay.run("spool", "compact", "--json").record["octets_after"] > 0
    assert relay.run("tenants", "list", "--json").record["tenant"] == "acme"


def test_verify_finds_what_was_changed(relay: Any, tmp_path: Path) -> None:
    message = relay.accept("a@one.test")
    relay.run("spool", "backup", str(tmp_path / "copy"))
    data = tmp_path / "copy" / "data.mdb"
    octets = bytearray(data.read_bytes())
    octets[octets.index(message_id_bytes(message) + b"\x00\x01\x01") + 60] ^= 1  # in the sealed record
    data.write_bytes(octets)
    done = relay.run("spool", "verify", str(tmp_path / "copy"), "--json")
    assert done.code == 1
    assert done.record["problems"]


def test_no_spool_is_compacted_where_there_is_none(relay: Any) -> None:
    done = relay.run("spool", "compact")
    assert (done.code, done.err) == (1, f"fairlead: spool {relay.config.spool_dir}: there is none\n")


async def test_compact_leaves_a_spool_in_use_alone(relay: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        *FAIRLEAD, "-c", str(relay.config_file), "events", "--follow", "--json", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await asyncio.to_thread(relay.accept, "a@one.test")
    async with asyncio.timeout(20):
        await process.stdout.readline()
        done = await asyncio.to_thread(relay.run, "spool", "compact")
        process.terminate()
        await process.wait()
    assert (done.code, done.err) == (75, "fairlead: the spool is in use; stop the relay first\n")


def test_lists_are_aligned_and_safe_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    columns = (Column("name", "NAME", 4), Column("made_at", "MADE", 4), Column("all", "ALL", 4))
    out = Printer(as_json=False)
    out.row({"name": "a\x1b[0m", "made_at": 0.0, "all": ["x", "y"]}, columns)
    out.row({"name": None, "made_at": 1.0, "all": []}, columns)
    assert capsys.readouterr().out == "NAME  MADE  ALL\na\\x1b[0m  -     x,y\n-     1970-01-01T00:00:01Z  -\n"


@pytest.mark.parametrize("text", ["\x00", "\u202e", "\ud800", "\x9b", "\u2028"])
def test_what_a_terminal_would_obey_is_escaped(text: str) -> None:
    assert printable(f"a{text}b").isascii()
    assert printable("ä b") == "ä b"


def test_serve_names_a_port_that_is_taken_and_ends(relay: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with relay.config_file.open("a") as file:
            file.write(f"http: {{address: '127.0.0.1:{port}'}}\nlisteners: []\n")
        done = run("-c", str(relay.config_file), "serve")
    assert done.returncode == 2
    assert re.search(rf"cannot-start .*in use.*\b{port}\b", done.stderr)
    assert "Traceback" not in done.stderr
