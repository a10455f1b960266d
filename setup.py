"""Compile the modules that mail passes through to C, when FAIRLEAD_COMPILE=1 asks for it (docs/decisions/0010).

Everything else about the package is in pyproject.toml. What mypyc cannot compile, it says. What it compiles to
something else is refused here:

- a generator expression that is not called with any, all, sum, tuple or the like: it becomes a list;
- a msgspec struct that is stored or sent (`array_like`), or has a ClassVar or a default factory: of its annotations
  too little is kept;
- await in an `except` or `finally`: what is being handled is then seen by whoever runs meanwhile, and stays.

And what nothing refuses: a subclass of threading.local crashes when it is imported.
"""

import ast
import contextlib
import io
import os
import re
import sys
from pathlib import Path

from setuptools import setup

COMPILED = {
    "mta/accounts": "known senders",
    "mta/content": "compose",
    "mta/mail": "address dsn event_line headers ids reply tls_required",
    "mta/ingress": "arrival body connection dialog once parameters questions replies server session trace",
    "mta/queue": "acceptance bucket doorbell held limits pace queue rate reports retry scheduler shares transitions "
    "turns window",
    "mta/delivery": "attempt canonical dispatcher gate letter lookout pool signing smtp underway wire",
    "mta/spool/lmdb": "apart commit content keys log spool steps terms view writer",
    "relay_http": "access contents door fields kept outgoing rates sending values writing",
    "relay_http/sendgrid": "request resource settings translate values",
}


def extensions() -> list[object]:
    """Translate the modules; exits with what the compiler says if it would change what one means."""
    from mypyc.build import mypycify  # noqa: PLC0415 - there is none where nothing is compiled

    files = [f"{package}/{name}.py" for package, names in COMPILED.items() for name in names.split()]
    for source in files:
        refuse(source, Path(source).read_text(encoding="utf-8"))
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            found = mypycify(files, opt_level="2", debug_level="0", multi_file=True)
    except SystemExit as stopped:
        sys.exit(said.getvalue() or stopped.code)
    if "warning:" in said.getvalue():  # a generator that would become a list
        sys.exit(said.getvalue())
    return found


def refuse(source: str, text: str) -> None:
    """Exit if a module has what would be compiled to something else."""
    if found := re.search(r"\b(array_like|ClassVar|default_factory)\b", text):
        sys.exit(f"{source}: {found[0]}: such a struct cannot be in a module that is compiled")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Try):
            handling = [*node.finalbody, *(each for handler in node.handlers for each in handler.body)]
            for each in handling:
                for inner in ast.walk(each):
                    if isinstance(inner, ast.Await | ast.Yield | ast.YieldFrom):
                        sys.exit(f"{source}:{inner.lineno}: awaits in an except or finally; leave it first")


# A build frontend calls several times, and once to build.
wanted = os.environ.get("FAIRLEAD_COMPILE") == "1" and not {"build", "bdist_wheel"}.isdisjoint(sys.argv)
setup(ext_modules=extensions() if wanted else [])
