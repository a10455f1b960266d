"""Logging: one record a line that nothing from outside can forge, in both formats, cheap enough for each message."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest

from mta import logs
from mta.config import Log

log = logging.getLogger("mta.delivery.attempt")
Lines = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Give the process its logging back."""
    root = logging.root
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in (*logs._TAMED, "py.warnings")}
    root.handlers.clear()
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, sys.excepthook, threading.excepthook, logging.raiseExceptions = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def text_lines() -> Lines:
    stream = io.StringIO()
    logs.configure(Log(), "delivery", stream)
    return lambda: stream.getvalue().splitlines()


@pytest.fixture
def json_lines() -> Lines:
    stream = io.StringIO()
    logs.configure(Log(format="json"), "delivery", stream)
    return lambda: stream.getvalue().splitlines()


def test_text(text_lines: Lines) -> None:
    log.info("relay=%s delay=%.2f", "mx.example.test", 1.5)
    (line,) = text_lines()
    time, rest = line.split(" ", 1)
    assert time.startswith("time=2")
    assert time.endswith("Z")
    assert len(time) == len("time=2027-01-15T12:00:00.123Z")
    assert rest == "level=info role=delivery logger=mta.delivery.attempt relay=mx.example.test delay=1.50"


def test_text_cannot_be_forged(text_lines: Lines) -> None:
    log.info("reply=%s", "no\r\ntime=2027 level=critical\x1b[2J\u202e\ud800\x85")
    (line,) = text_lines()
    assert line.endswith(r"reply=no\r\ntime=2027 level=critical\x1b[2J\u202e\ud800\x85")


def fail(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("session=%s broke", "s1")


def test_a_traceback_in_text_is_indented(text_lines: Lines) -> None:
    fail("a\ntime=1 level=info forged")
    first, *rest = text_lines()
    assert first.endswith("session=s1 broke")
    assert rest
    assert all(each.startswith("    ") for each in rest)


def test_json(json_lines: Lines) -> None:
    fail("a\nb")
    (line,) = json_lines()
    shown = json.loads(line)
    assert shown.pop("time").endswith("Z")
    assert shown.pop("traceback").endswith("ValueError: a\nb")
    assert shown == {
        "level": "error",
        "role": "delivery",
        "logger": "mta.delivery.attempt",
        "text": "session=s1 broke",
    }


def test_json_of_what_is_not_unicode(json_lines: Lines) -> None:
    log.warning("file=%s", os.fsdecode(b"\xff"))
    assert json.loads(json_lines()[0])["text"] == "file=\\udcff"


def test_level_and_a_second_call(text_lines: Lines) -> None:
    stream = io.StringIO()
    log.debug("not shown")
    logs.configure(Log(level="debug"), "delivery", stream)
    log.debug("shown")
    assert text_lines() == []
    assert stream.getvalue().endswith("shown\n")
    assert len(logging.root.handlers) == 1


@pytest.mark.parametrize("name", ["mail.log", "uvicorn.error", "dns.resolver", "asyncio"])
def test_libraries_tell_warnings_only_and_through_us(name: str, text_lines: Lines) -> None:
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")
    (line,) = text_lines()
    assert line.endswith(f"logger={name} trouble")


def test_warnings_and_what_nobody_caught_are_records(json_lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    try:
        raise KeyError("x")
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)
    warned, in_thread, at_top = (json.loads(line) for line in json_lines())
    assert "old way" in warned["text"]
    assert in_thread["traceback"].endswith("ZeroDivisionError: division by zero")
    assert (at_top["level"], at_top["text"]) == ("critical", "uncaught")


CHILD = """
import logging, os, sys
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino + int(sys.argv[1])}"
from mta.config import Log
from mta import logs
logs.configure(Log(format=sys.argv[2]), "http")
logging.getLogger("a").warning("w")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("a").exception("e")
"""


def stderr_of_child(offset: int, shape: str) -> list[str]:
    command = [sys.executable, "-c", CHILD, str(offset), shape]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def test_the_journal_gets_levels_and_no_times() -> None:
    first, second, *rest = stderr_of_child(0, "text")
    assert first == "<4>level=warning role=http logger=a w"
    assert second == "<3>level=error role=http logger=a e"
    assert all(each.startswith("<3>    ") for each in rest), "each line is a record of the journal"
    first, second = stderr_of_child(0, "json")
    assert first == '<4>{"level":"warning","role":"http","logger":"a","text":"w"}'
    assert second.startswith('<3>{"level":"error"')


def test_a_journal_that_is_not_our_standard_error_is_no_matter() -> None:
    assert stderr_of_child(1, "text")[0].startswith("time=")


def test_gathered_lines_are_late_but_warnings_are_not() -> None:
    stream = io.StringIO()
    logs.configure(Log(), "ingress", stream, gather=True)
    log.info("first")
    log.info("second")
    assert stream.getvalue() == ""
    log.warning("third")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["first", "second", "third"]


def test_a_gathered_line_that_cannot_be_made_takes_no_other_with_it() -> None:
    stream = io.StringIO()
    logs.configure(Log(), "ingress", stream, gather=True)
    log.info("first")
    log.info("%d", "no number")
    log.warning("third")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["first", "third"]


def test_who_logs_while_a_line_is_made_does_not_wait_for_himself() -> None:
    """As the finalizer of a future does whose exception nobody has seen."""

    class Complaining:
        def __str__(self) -> str:
            log.warning("inner")
            return "outer"

    def both() -> None:
        log.info("%s", Complaining())
        log.warning("end")

    stream = io.StringIO()
    logs.configure(Log(), "ingress", stream, gather=True)
    thread = threading.Thread(target=both, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    (handler,) = logging.root.handlers
    handler.close()
    assert sorted(line.rpartition(" ")[2] for line in stream.getvalue().splitlines()) == ["end", "inner", "outer"]


def test_gathered_lines_come_by_themselves_and_at_the_end() -> None:
    stream = io.StringIO()
    logs.configure(Log(), "ingress", stream, gather=True)
    log.info("by itself")
    until = time.monotonic() + 5
    while not stream.getvalue() and time.monotonic() < until:
        time.sleep(0.01)
    log.info("at the end")
    (handler,) = logging.root.handlers
    handler.close()
    assert [line.partition("attempt ")[2] for line in stream.getvalue().splitlines()] == ["by itself", "at the end"]
