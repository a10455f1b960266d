"""The benchmark works: whoever changes the product can see at once what it costs."""

import subprocess

from tests.interop.relay import ROOT


def test_a_quick_run_measures_every_server() -> None:
    done = subprocess.run(
        [ROOT / "scripts/bench", "--quick", "--only", "signed"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in done.stdout.splitlines() if "signed" in line]
    servers = ["Fairlead, signing", "Postfix", "Postfix with OpenDKIM"]
    assert rows == [["signed", connections, server] for connections in ("kept", "one a message") for server in servers]
