"""Whatever bytes come, cut anywhere: a session never raises, speaks well-formed replies only, and asks to keep a
message only for who may send one: after EHLO, MAIL and RCPT, and on a submission listener after a login.
"""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mta.config import Limits, Listener
from mta.ingress.access import Identity, client_at
from mta.ingress.body import Budget
from mta.ingress.questions import Abandon, Accept, Authenticate, StartTls, Store
from mta.ingress.session import Session
from mta.mail.reply import Reply

NOW = 1_795_222_923.0  # 2026-11-21T01:02:03Z
REPLY_LINES = re.compile(rb"(?:[2-5][0-9]{2}[ -][ -~]{0,506}\r\n)*")
LISTENERS = {
    "relay": {"kind": "relay", "networks": ["127.0.0.0/8"], "tenant": "alice"},
    "fixing": {"kind": "relay", "networks": ["127.0.0.0/8"], "tenant": "alice", "bare_newlines": "fix"},
    "strict": {"kind": "relay", "networks": ["127.0.0.0/8"], "tenant": "alice", "long_lines": "refuse"},
    "submission": {"kind": "submission"},
    "starttls": {"kind": "submission", "tls": "starttls"},
}
WORDS = [
    *(b"HELO ", b"EHLO ", b"MAIL FROM:", b"RCPT TO:", b"DATA", b"RSET", b"NOOP", b"QUIT", b"STARTTLS", b"VRFY "),
    *(b"AUTH PLAIN ", b"AUTH LOGIN", b"AGFsaWNlAHNlY3JldA==", b"AGFsaWNlAHdyb25n", b"BDAT 9 LAST", b"*", b"="),
    *(b"<a@b.test>", b"<>", b"<@x.test:a@b.test>", b'<"a b"@c.test>', b"<postmaster>", b"<a@[IPv6:::1]>"),
    *(
        b" SIZE=10",
        b" BODY=8BITMIME",
        b" SMTPUTF8",
        b" NOTIFY=NEVER",
        b" ORCPT=rfc822;a+40b",
        b" RET=HDRS",
        b" ENVID=x",
        b" BY=60;R",
        b" BY=-5;NT",
        b" HOLDFOR=60",
        b" HOLDUNTIL=2027-01-15T08:00:30Z",
        b" MT-PRIORITY=-9",
    ),
    *(
        b"client.test",
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b".",
        b"\r\n.\r\n",
        b"..",
        b"\0",
        b"\xff",
        b" ",
        b"\xc3\xa9",
    ),
    *(b"Subject: x\r\n\r\nbody\r\n", b"GET / HTTP/1.1\r\n", b"x" * 1100, b"y" * 13000),
    b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n",
    b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n",
]
inputs = st.lists(st.sampled_from(WORDS) | st.binary(max_size=20), max_size=40)


class Shell:
    """Answers questions as connection.py does, and checks what is asked and said."""

    def __init__(self, listener: str, answers: st.DataObject) -> None:
        settings = {"address": "127.0.0.1:25"} | LISTENERS[listener]
        self.listener = Listener.model_validate(settings)
        self.budget = Budget(30_000)
        limits = Limits.model_validate({"recipients": 3, "size": 20_000, "commands": 60, "errors": 8})
        self.session = Session(self.listener, limits, "mx.test", client_at("127.0.0.1"), self.budget, now=lambda: NOW)
        self.answers = answers
        self.logged_in = False
        self.tls = False
        self.stored = False

    def turn(self) -> None:
        """Take what the session says and answer what it asks, until it wants input."""
        session = self.session
        while session.question is not None or session.behind:
            self.look()
            match session.question:
                case None:
                    session.resume()
                case Authenticate(login):
                    assert self.listener.tls == "none" or self.tls
                    right = login == ("alice", "secret")
                    self.logged_in = self.logged_in or right
                    session.answer_login(Identity("alice", "alice") if right else None)
                case StartTls():
                    self.logged_in, self.tls = False, True
                    session.tls_started("TLSv1.3")
                case Store(envelope, _) | Accept(envelope, _) as question:
                    assert self.listener.kind == "relay" or self.logged_in
                    assert self.listener.tls == "none" or self.tls
                    assert 1 <= len(envelope.recipients) <= 3
                    refused = self.answers.draw(st.booleans())
                    self.stored = isinstance(question, Store) and not refused
                    done = Reply(250, "2.0.0", "OK") if isinstance(question, Accept) else None
                    session.answer(Reply(451, "4.3.0", "no") if refused else done)
                case Abandon():
                    assert self.stored
                    session.answer()
        self.look()

    def look(self) -> None:
        assert REPLY_LINES.fullmatch(self.session.take_output())
        for refusal in self.session.take_refusals():
            assert refusal.about.isprintable()
            assert "c2VjcmV0" not in refusal.about  # "secret", as AUTH has it


@given(st.sampled_from(list(LISTENERS)), inputs, st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes(listener: str, words: list[bytes], data: st.DataObject) -> None:
    shell = Shell(listener, data)
    shell.session.greet()
    sent, at = b"".join(words), 0
    while at < len(sent) and not shell.session.closed:
        step = data.draw(st.sampled_from([1, 3, 50, 1000, 100_000]))
        shell.session.receive(sent[at : at + step])
        at += step
        shell.turn()
    shell.session.eof()
    shell.turn()
    assert shell.session.closed
    shell.session.release()
    assert shell.budget.used == 0
