"""Batches: their ids, what is said of them, and that it counts at the next attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.accounts.tenants import AccountError
from mta.mail.ids import message_id_bytes, message_id_text
from mta.queue import batches
from mta.queue.batches import CANCELLED, PAUSED, VALID, Batch, Word

NOW = 1_800_000_000.0


class Records:
    """The named records of a spool."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}

    async def get_record(self, kind: str, name: str) -> bytes | None:
        return self.kept.get((kind, name))

    async def put_record(self, kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        assert replace
        self.kept[kind, name] = value
        return True

    async def delete_record(self, kind: str, name: str) -> bool:
        return self.kept.pop((kind, name), None) is not None

    async def list_records(self, kind: str) -> list[tuple[str, bytes]]:
        return [(name, value) for (each, name), value in self.kept.items() if each == kind]


@pytest.fixture
def spool() -> Records:
    return Records()


@given(st.integers(0, 127), st.text(max_size=5))
def test_one_bit_makes_it_another_and_so_does_a_tenant(bit: int, tenant: str) -> None:
    batch = batches.new_batch(tenant, NOW)
    assert batches.is_batch(tenant, batch, NOW)
    assert not batches.is_batch(f"{tenant}x", batch, NOW)
    raw = int.from_bytes(message_id_bytes(batch), "big") ^ 1 << bit
    assert not batches.is_batch(tenant, message_id_text(raw.to_bytes(16, "big")), NOW)


@pytest.mark.parametrize(
    ("at", "good"), [(0.0, True), (VALID - 1, True), (VALID + 1, False), (-59.0, True), (-61.0, False)]
)
def test_an_id_is_good_for_ten_days(at: float, good: bool) -> None:
    assert batches.is_batch("shop", batches.new_batch("shop", NOW), NOW + at) is good


@pytest.mark.parametrize("text", ["", "x", "ü" * 22, "a" * 22, "\0" * 22])
def test_what_is_no_id(text: str) -> None:
    assert not batches.is_batch("shop", text, NOW)


async def test_what_is_said_is_wished_until_it_is_forgotten(spool: Records) -> None:
    batch = batches.new_batch("shop", NOW)
    for word, wish in ((Word.PAUSE, PAUSED), (Word.CANCEL, CANCELLED), (Word.GO, None)):
        await batches.say(spool, "shop", batch, word, NOW)  # type: ignore[arg-type]
        assert await batches.said(spool, "shop", batch) is word  # type: ignore[arg-type]
        assert await batches.wish_of(spool, "shop", batch) == wish  # type: ignore[arg-type]
        assert await batches.wish_of(spool, "other", batch) is None  # type: ignore[arg-type]
        shown = [] if word is Word.GO else [Batch(id=batch, word=word)]
        assert await batches.list_all(spool, "shop") == shown  # type: ignore[arg-type]
    await batches.forget(spool, "shop", batch)  # type: ignore[arg-type]
    assert await batches.said(spool, "shop", batch) is None  # type: ignore[arg-type]
    assert not spool.kept


async def test_a_bounded_number_is_spoken_of_and_what_is_over_makes_room(spool: Records) -> None:
    for number in range(batches.MOST):
        batch = batches.new_batch("shop", NOW + number)
        await batches.say(spool, "shop", batch, Word.PAUSE, NOW)  # type: ignore[arg-type]
    await batches.say(spool, "shop", batch, Word.CANCEL, NOW)  # type: ignore[arg-type]
    another = batches.new_batch("shop", NOW)
    with pytest.raises(AccountError):
        await batches.say(spool, "shop", another, Word.PAUSE, NOW)  # type: ignore[arg-type]
    await batches.say(spool, "other", another, Word.PAUSE, NOW)  # type: ignore[arg-type]
    await batches.say(spool, "shop", another, Word.PAUSE, NOW + 17 * 86_400 + 50.5)  # type: ignore[arg-type]
    assert len(await batches.list_all(spool, "shop")) == 50  # type: ignore[arg-type]
