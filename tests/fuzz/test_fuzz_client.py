"""Whatever a server says, an attempt does not raise and ends in time; it is DELIVERED only after the final dot went out
and a reply of 2xx came back to it; and no line that it sends could be taken for another.
"""

import asyncio
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mta.mail.result import Verdict
from tests.unit.delivery.peers import HOST, Relay, config, job, route

PIECES = [
    *(
        b"220 mx.test\r\n",
        b"250 ok\r\n",
        b"250-mx.test\r\n250-PIPELINING\r\n250 SIZE 9999\r\n",
        b"250-x\r\n",
        b"354 go\r\n",
    ),
    *(b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n550 5.1.1 no\r\n354 go\r\n", b"250 ok\r\n450 later\r\n550 no\r\n"),
    *(
        b"550 5.7.1 no\r\n",
        b"451 later\r\n",
        b"421 bye\r\n",
        b"503 what\r\n",
        b"552 5.2.2 full\r\n",
        b"999 x\r\n",
        b"354 \n",
    ),
    *(
        b"25",
        b"\r",
        b"\n",
        b"\0",
        b"\xff\r\n",
        b"250\r\n",
        b"250_x\r\n",
        b"250 " + b"x" * 2000 + b"\r\n",
        b"250-a\r\n" * 1100,
    ),
    *(
        b"250-STARTTLS\r\n250 SIZE x\r\n",
        b"250 SIZE 1\r\n",
        b"250 ok\r\n354 go\r\n250 done\r\n",
        b"x" * 70_000,
        b"",
        b"",
    ),
]
CLOSE = None
SECONDS = 0.03
usual = [b"220 mx.test\r\n", b"250-mx.test\r\n250 PIPELINING\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 taken\r\n"]
dialogs = st.builds(
    lambda kept, others: usual[:kept] + others,
    st.integers(0, len(usual)),
    st.lists(st.sampled_from([*PIECES, CLOSE]) | st.binary(max_size=12), max_size=6),
)
CONTENT = b"From: a@sender.test\r\n\r\n.\r\n..x\r\nend\r\n"


class Server:
    """Says the next piece of its dialog at the start and after each thing heard, and hangs up at its end."""

    def __init__(self, dialog: list[bytes | None]) -> None:
        self.dialog = dialog
        self.heard = b""
        self.said_since_dot: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard, pieces = b"", iter(self.dialog)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while (piece := next(pieces, CLOSE)) is not CLOSE:
                if b"\r\n.\r\n" in heard:
                    self.said_since_dot.append(piece)
                writer.write(piece)
                more = await reader.read(65536)
                heard += more
                if not more or heard.endswith(b"QUIT\r\n"):
                    break
        except ConnectionError:
            pass
        finally:
            self.heard += heard
            writer.close()


async def run(dialog: list[bytes | None]) -> None:
    server = Server(dialog)
    listening = await asyncio.start_server(server.serve, HOST, 0)
    times = {f"{each}_timeout": SECONDS for each in ("connect", "greeting", "command", "data", "block", "final")}
    made = config(routes=[route(listening.sockets[0].getsockname()[1], tls="none")], **times)
    async with Relay(made, content=CONTENT) as relay, asyncio.timeout(5):
        outcome = await relay.attempt(job("a@rcpt.test"))
    listening.close()
    await asyncio.wait_for(asyncio.gather(*server.tasks), 5)
    for result in outcome.results:
        assert isinstance(result.verdict, Verdict)
        assert len(str(result.reply)) < 1100
        assert "\r" not in str(result.reply)
        if result.verdict is Verdict.DELIVERED:
            assert re.match(rb"(?:2[0-9]{2}-[^\n]*\n)*2[0-9]{2}[ \r\n]", b"".join(server.said_since_dot))
    lines = server.heard.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    commands = [line for line in lines if line.startswith((b"MAIL", b"RCPT"))]
    assert {line.partition(b" SIZE")[0] for line in commands} <= {
        b"MAIL FROM:<a@sender.test>",
        b"RCPT TO:<a@rcpt.test>",
    }
    assert lines.count(b".") <= 1


@given(dialogs)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_server(dialog: list[bytes | None]) -> None:
    asyncio.run(run(dialog))
