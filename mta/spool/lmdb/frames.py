"""What a role and the process of its writer say to each other: a hello, operations, reports.

A module of its own, because what is decoded needs its annotations whole, and mypyc keeps but their outlines.
"""

import msgspec

from mta.spool.interface import Full, Kept, Refused, SpoolError, Taken, Throttled, Unavailable, Uncertain
from mta.spool.lmdb.counting import CountBacklog
from mta.spool.lmdb.environment import Place
from mta.spool.lmdb.operations import Accepting, AcceptingOn, Changing, Claiming, Settling, Wishing
from mta.spool.lmdb.upkeep import (
    ChangeRecord,
    Collect,
    DeleteRecord,
    DiscardEvents,
    GiveUp,
    MendHints,
    MendTimers,
    NextEpoch,
    PutRecord,
    Quarantine,
    StorePages,
)

_AnyOperation = (
    Accepting | AcceptingOn | Claiming | Wishing | Settling | Changing | StorePages | GiveUp | Collect | PutRecord
    | ChangeRecord | DeleteRecord | NextEpoch | Quarantine | MendHints | MendTimers | DiscardEvents | CountBacklog
)  # fmt: skip
_ERRORS: tuple[type[SpoolError], ...] = (Refused, Uncertain, Full, Unavailable)  # the first that fits
encode = msgspec.msgpack.Encoder().encode


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """How the spool is to be opened, and its keys."""

    place: Place
    keys: list[bytes]


Value = int | bool | Taken | Kept | Throttled | None
Failure = tuple[int, str]  # which of _ERRORS, and its text


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What came of the next operations in order: their values, but for those (by their place) that failed.

    `sick` is why nothing can be committed any more, "" if it can.
    """

    values: list[Value]
    failures: dict[int, Failure]
    sick: str


decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_operations = msgspec.msgpack.Decoder(list[_AnyOperation]).decode
decode_report = msgspec.msgpack.Decoder(Report).decode


def failure(error: SpoolError) -> Failure:
    """Say an error."""
    fits = [number for number, kind in enumerate(_ERRORS) if isinstance(error, kind)]
    return fits[0] if fits else 0, str(error)


def error(failed: Failure) -> SpoolError:
    """Understand what `failure` said."""
    kind, text = failed
    return _ERRORS[kind](text)
