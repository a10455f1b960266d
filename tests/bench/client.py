"""`delivery/smtp` alone, without spool or queue: processor time of a message on a kept connection.

A process of its own, so that its time is nobody else's: `python -m tests.bench.client HOST:PORT CONNECTIONS MESSAGES`
prints microseconds a message. What is counted is what an attempt does once it has content and connection: write the
letter, make the transaction, judge the replies.
"""

import asyncio
import ssl
import sys
import time
from itertools import repeat

import uvloop

from mta.config import Delivery, HostPort
from mta.delivery import letter, trouble
from mta.delivery.policy import Demand, Level
from mta.delivery.route import NextHop, Site, Target
from mta.delivery.smtp import Connection, connect
from mta.delivery.source import Leaving, Source
from mta.delivery.tls import Hello, TlsContexts
from mta.mail.envelope import Recipient
from mta.mail.result import Verdict
from mta.spool.records import Message, Origin

OCTETS = 2000
_WARM_UP = 200
_MESSAGE = Message(
    id="bench", tenant="bench", sender="app@bench.test", origin=Origin.RELAY, accepted_at=0, release_at=0,
    expires_at=0, segments=(), entries=1,
)  # fmt: skip
_RECIPIENTS = (Recipient("to@away.test"),)
_CONTENT = b"Subject: bench\r\n\r\n" + (b"x" * 74 + b"\r\n") * (OCTETS // 76)


class _NoDemand:
    demand = Demand(names=("away.test",))

    def context(self, hello: Hello) -> ssl.SSLContext:
        return TlsContexts().context(hello)

    def stumbled(self, trouble: trouble.Trouble) -> None:
        raise trouble

    def admit(self, session: ssl.SSLObject | None) -> Level:
        return Level.CLEAR


async def _deliver(connection: Connection, messages: int) -> None:
    for _ in repeat(None, messages):
        said = await connection.transact(letter.write(_MESSAGE, _RECIPIENTS, b"", _CONTENT), 0.0)
        if trouble.verdicts(said, len(_RECIPIENTS))[0].verdict is not Verdict.DELIVERED:
            raise RuntimeError(f"not delivered: {said}")


async def _measure(address: HostPort, connections: int, messages: int) -> float:
    site = Site((NextHop(0, address.host, address.port),), "none", routed=True)
    target = Target(address.host, address.host, address.port)
    settings, guard, leaving = Delivery(), _NoDemand(), Leaving(Source("", "relay.test"), "")
    opened = [await connect(target, site, leaving, settings, guard) for _ in range(connections)]
    await asyncio.gather(*[_deliver(each, _WARM_UP) for each in opened])
    share = messages // connections
    began = time.process_time()
    await asyncio.gather(*[_deliver(each, share) for each in opened])
    spent = time.process_time() - began
    for each in opened:
        await each.wire.farewell()
    return 1e6 * spent / (share * connections)


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    print(uvloop.run(_measure(HostPort(host=host, port=int(port)), int(sys.argv[2]), int(sys.argv[3]))))
