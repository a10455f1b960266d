"""The benchmark works: whoever changes the product can see at once what it costs."""

import subprocess

from tests.interop.relay import ROOT

_QUICKLY = ["--quick", "--only", "signed", "sts", "http", "client", "--connections", "kept"]


def test_a_quick_run_measures_every_server() -> None:
    done = subprocess.run([ROOT / "scripts/bench", *_QUICKLY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line]
    signed = [row[:4] for row in rows if row[0] == "signed"]
    assert signed == [["signed", "20 kept", "2 KB", server] for server in ("Fairlead", "Postfix with OpenDKIM")]
    sts = [row[3] for row in rows if row[0] == "sts"]
    assert sts == ["Fairlead", "Fairlead in the clear"]
    posted = [row[:2] for row in rows if row[:1] in (["0"], ["5,000"])]
    assert posted == [[waiting, rate] for waiting in ("0", "5,000") for rate in ("all it takes", "500/s")]
    wanted = [row for row in rows if row[-1] in ("yes", "**no**")]
    assert len(wanted) == 1 + 1 + 4 + 1
