"""Message ids as UUIDs: the same octets, and both are read."""

import uuid

import pytest

from mta.mail.ids import message_id_bytes, new_message_id
from relay_http.uuids import id_of, uuid_of


def test_it_is_the_same_id() -> None:
    id_ = new_message_id()
    written = uuid_of(id_)
    assert uuid.UUID(written).bytes == message_id_bytes(id_)
    assert uuid.UUID(written).version == 7
    assert id_of(written) == id_of(written.upper()) == id_of(id_) == id_


@pytest.mark.parametrize("text", ["", "x", "x" * 36, "x" * 22, "{01a1eeba-0001-75b5-87b0-da5fbbc1269c}", "0" * 32])
def test_what_is_none(text: str) -> None:
    assert id_of(text) is None
