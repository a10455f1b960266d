"""Records that earlier versions stored are read as they were meant."""

import msgspec

from mta.accounts.keys import ApiKey
from mta.spool.records import Entry, Hold, Wish
from tests.contract.spool_contract import NOW, a_message


def older(record: msgspec.Struct, fields: int) -> bytes:
    """Write a record as a version did that had so many fields less."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(record))[:-fields])


def test_an_entry_held_before_it_was_said_by_whom() -> None:
    entry = msgspec.structs.replace(a_message().entries[0], held=True)
    assert msgspec.msgpack.decode(older(entry, 1), type=Entry) == entry
    held = msgspec.structs.replace(entry, hold=Hold(NOW, "by the operator"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(held), type=Entry) == held


def test_a_wish_and_a_key_from_before_there_were_two_kinds() -> None:
    wish = Wish(held=True, reason="by the operator")
    assert msgspec.msgpack.decode(older(wish, 1), type=Wish) == wish
    key = ApiKey(id="x", tenant="acme", scopes=("manage",), digest=b"", created_at=NOW)
    assert msgspec.msgpack.decode(older(key, 1), type=ApiKey) == key
    assert not key.operator
