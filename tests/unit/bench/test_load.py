"""The load and the sink: every message is another one, and is counted once."""

import pytest
import uvloop

from tests.bench.orders import Load, Mail, Malfunction, Report
from tests.bench.sink import Sink


def mail(sink: Sink, **changed: object) -> Mail:
    given = {"run": 7, "sessions": 3, "kept": True, "octets": 2000, "destinations": 4, "messages": 20, "seconds": 60.0}
    return Mail(address=(sink.address.host, sink.address.port), **(given | changed))  # type: ignore[arg-type]


async def _sent(sink: Sink, *orders: dict[str, object]) -> list[Report]:
    await sink.start()
    async with Load() as load:
        reports = [await load.make(mail(sink, **each)) for each in orders]
    await sink.close()
    return reports


@pytest.mark.parametrize("kept", [True, False])
def test_messages_arrive_once_each_and_are_timed(kept: bool) -> None:
    sink = Sink()
    sink.expect(7)
    (report,) = uvloop.run(_sent(sink, {"kept": kept}))
    assert (report.accepted, sink.count, sink.repeated) == (20, 20, 0)
    assert report.began < report.ended
    assert sink.last_at < report.ended
    header, _, body = sink.sample[0].partition(b"\r\n\r\n")
    assert b"\r\nSubject: bench.7." in header
    assert len(body) == 2000
    assert body.endswith(b"\r\n")
    assert max(map(len, body.split(b"\r\n"))) <= 76


def test_the_sink_tells_what_came_twice_and_what_is_of_another_run() -> None:
    sink = Sink()
    sink.expect(7)
    uvloop.run(_sent(sink, {}, {"run": 8}, {"messages": 5}))
    assert (sink.count, sink.repeated) == (20, 5)


def test_a_run_ends_when_its_time_is_up() -> None:
    sink = Sink()
    (report,) = uvloop.run(_sent(sink, {"messages": 1_000_000, "seconds": 0.2}))
    assert 0 < report.accepted < 1_000_000
    assert report.ended - report.began < 1


def test_a_refusal_is_told() -> None:
    sink = Sink()
    sink.address = sink.address.__class__(host="127.0.0.1", port=1)

    async def refused() -> None:
        async with Load() as load:
            await load.make(mail(sink))

    with pytest.raises(Malfunction, match=r"127\.0\.0\.1:1"):
        uvloop.run(refused())
