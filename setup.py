"""Compile the modules that mail passes through to C, when FAIRLEAD_COMPILE=1 asks for it (docs/decisions/0010).

Everything else about the package is in pyproject.toml. What mypyc wants of a compiled module: no async generator, no
class-level table of the class's own methods, no subclass of threading.local, no msgspec struct that is decoded or has
a ClassVar or a default factory (of annotations too little is kept), and no generator expression but as what any, all,
sum, tuple and the like are called with.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

from setuptools import setup

COMPILED = {
    "mta/mail": "address event_line headers ids reply",
    "mta/ingress": "arrival body connection dialog parameters questions replies server session trace",
    "mta/queue": "acceptance doorbell queue retry scheduler transitions",
    "mta/delivery": "attempt dispatcher letter pool signing smtp wire",
    "mta/spool/lmdb": "apart commit content keys log spool steps view writer",
}


def extensions() -> list[object]:
    """Translate the modules; exits with what the compiler says if it would change what one means."""
    from mypyc.build import mypycify  # noqa: PLC0415 - there is none where nothing is compiled

    files = [f"{package}/{name}.py" for package, names in COMPILED.items() for name in names.split()]
    for source in map(Path, files):
        text = source.read_text(encoding="utf-8")
        for name in re.findall(r"^class (\w+)\(msgspec\.Struct", text, re.MULTILINE):
            if re.search(rf"Decoder\(.*\b{name}\b", text):
                sys.exit(f"{source}: {name} is decoded, and cannot be where modules are compiled")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        found = mypycify(files, opt_level="2", debug_level="0", multi_file=True)
    if "warning:" in said.getvalue():  # such as a generator that would become a list
        sys.exit(said.getvalue())
    return found


# A build frontend calls several times, and once to build.
wanted = os.environ.get("FAIRLEAD_COMPILE") == "1" and not {"build", "bdist_wheel"}.isdisjoint(sys.argv)
setup(ext_modules=extensions() if wanted else [])
