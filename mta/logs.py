"""Logging of a process: one line or one JSON object a record, on standard error.

A line of text begins with our own fields and has no control characters, so nothing from outside can
forge a record; a traceback follows indented. A JSON record is one line, traceback included. Under
systemd the journal has its own time: ours is left out and the level goes before the line as `<N>`
(sd-daemon(3)). A record costs 7 µs, the write included: a queue and a thread would cost more than they
take off the loop.
"""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

if TYPE_CHECKING:
    from mta.config import Log  # which a companion has no use for: see mta/companion.py

_TAMED = {  # loggers of libraries that tell more than an operator wants
    "aiosmtpd": "warning",
    "asyncio": "warning",
    "dns": "warning",
    "mail.log": "warning",  # aiosmtpd's session log
    "uvicorn": "warning",  # starts and stops are told by the role
}
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}  # syslog(3)


class JsonRecord(msgspec.Struct, omit_defaults=True):
    """A log record as JSON."""

    time: str = ""
    level: str = ""
    role: str = ""
    logger: str = ""
    text: str = ""
    traceback: str = ""


GATHER = 0.1  # seconds
_END = 1.0  # seconds that the thread has to finish what it is writing
GATHERED = 50  # lines: more would use up the caches


class _Times:
    """Writes times in UTC; all but the milliseconds are made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((created - second) * 1000):03d}Z"


class _Record(logging.LogRecord):
    """A record with what is shown.

    PERF: the stock one takes the path of its source file apart each time, a third of what a line costs (cProfile).
    """

    def __init__(
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
    ) -> None:
        self.name, self.msg, self.args, self.exc_info = name, msg, args, exc_info
        self.levelno, self.levelname = level, logging.getLevelName(level)
        self.pathname, self.filename, self.lineno = pathname, pathname, lineno
        self.funcName, self.exc_text, self.stack_info = func or "", None, sinfo
        self.created = time.time()


class _Formatter(logging.Formatter):
    """What both formats share: role, journal, time."""

    def __init__(self, role: str, *, journal: bool) -> None:
        super().__init__()
        self._role = role
        self._journal = journal
        self._times = _Times()

    def _time(self, record: logging.LogRecord) -> str:
        return "" if self._journal else self._times.text(record.created)

    def _priority(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITIES.get(record.levelname, 6)}>" if self._journal else ""

    def _traceback(self, record: logging.LogRecord) -> str:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        return f"{text}\n{self.formatStack(record.stack_info)}" if record.stack_info else text


class TextFormatter(_Formatter):
    """`time= level= role= logger=`, then the record's own key=value text."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, or more when there is a traceback."""
        at, priority = self._time(record), self._priority(record)
        line = (
            f"{priority}{f'time={at} ' if at else ''}level={record.levelname.lower()} role={self._role} "
            f"logger={record.name} {_plain(record.getMessage())}"
        )
        traceback = self._traceback(record)
        if traceback:
            line += "".join(f"\n{priority}    {_plain(each)}" for each in traceback.splitlines())
        return line


class JsonFormatter(_Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, always."""
        shown = JsonRecord(
            time=self._time(record),
            level=record.levelname.lower(),
            role=self._role,
            logger=record.name,
            text=record.getMessage(),
            traceback=self._traceback(record),
        )
        return self._priority(record) + _json(shown).decode()


def _json(shown: JsonRecord) -> bytes:
    try:
        return msgspec.json.encode(shown)
    except UnicodeEncodeError:  # a lone surrogate, as in a file name that is not UTF-8
        text = shown.text.encode(errors="backslashreplace").decode()
        traceback = shown.traceback.encode(errors="backslashreplace").decode()
        return msgspec.json.encode(msgspec.structs.replace(shown, text=text, traceback=traceback))


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes what is informative together, and what is a warning or worse at once, with all before it.

    A record shows its arguments as they are when it is written: give those that do not change.

    PERF: a line of its own for each message cost a busy ingress 5 % in the file system alone (perf). Lines made
    one after the other, when they are written, cost half as much as those made where they come up.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._gathered: deque[logging.LogRecord] = deque()
        self._writing = threading.Lock()
        self._until = threading.Event()
        self._thread = threading.Thread(target=self._write_often, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, or write it with those kept."""
        self._gathered.append(record)
        if record.levelno >= logging.WARNING or len(self._gathered) >= GATHERED:
            self.write_gathered()

    def write_gathered(self) -> None:
        """Write what was kept, unless somebody does already, who then writes this too.

        Nobody waits for the lock: who holds it may log by himself, when what he lets go of complains of its end.
        """
        while self._gathered and self._writing.acquire(blocking=False):
            try:
                lines: list[str] = []
                while self._gathered:
                    lines += self._lines(self._gathered.popleft())
                with contextlib.suppress(OSError, ValueError):  # a closed standard error is no reason to fail
                    self.stream.write("".join([f"{line}\n" for line in lines]))
                    self.stream.flush()
            finally:
                self._writing.release()

    def _lines(self, record: logging.LogRecord) -> list[str]:
        try:
            return [self.format(record)]
        except Exception:  # noqa: BLE001 - what logging makes of its own failures is logging's to say
            self.handleError(record)
            return []

    def close(self) -> None:
        """Write the rest and stop."""
        self._until.set()
        self._thread.join(_END)
        self.write_gathered()
        super().close()

    def _write_often(self) -> None:
        while not self._until.wait(GATHER):
            self.write_gathered()


class Settings(msgspec.Struct, frozen=True):
    """`log` of the configuration, for a process that does not read it."""

    format: str
    level: str


def configure(settings: "Log | Settings", role: str, stream: TextIO | None = None, *, gather: bool = False) -> None:
    """Log as `settings` say from now on, to standard error; call it again after a reload.

    With `gather` informative lines may be a tenth of a second late, and are lost with a process that is killed.
    """
    stream = stream or sys.stderr
    make = JsonFormatter if settings.format == "json" else TextFormatter
    handler = GatheringHandler(stream) if gather else logging.StreamHandler(stream)
    handler.setFormatter(make(role, journal=_is_journal(stream)))
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    for name, level in _TAMED.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.getLevelName(level.upper()), logging.root.level))
    logging.setLogRecordFactory(_Record)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False  # a closed standard error is no reason to fail
    setattr(logging, "_srcfile", None)  # noqa: B010 - the switch that the logging HOWTO names: no stack walk a record
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _is_journal(stream: TextIO) -> bool:
    """Tell whether `stream` goes to the journal: systemd names device and inode (systemd.exec(5) JOURNAL_STREAM)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger(__name__).critical("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
