"""The session without a socket: pipelining, cutting, limits, questions, and what is never let through."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.config import Limits, Listener
from mta.ingress import replies
from mta.ingress.access import Client, Identity, client_at
from mta.ingress.body import Budget
from mta.ingress.questions import Abandon, Accept, Authenticate, StartTls, Store
from mta.ingress.session import STORE_AT, Session
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.reply import Reply

LOOPBACK = client_at("127.0.0.1")
REMOTE = client_at("192.0.2.1")
NOW = 1_795_222_923.0  # 2026-11-21T01:02:03Z
QUEUED = Reply(250, "2.0.0", "OK queued as x")
MAIL = b"MAIL FROM:<a@alice.test>\r\nRCPT TO:<b@remote.test>\r\nDATA\r\n"


def relay(**settings: object) -> Listener:
    given = {"address": "127.0.0.1:25", "kind": "relay", "networks": ["127.0.0.0/8"], "tenant": "alice"}
    return Listener.model_validate(given | settings)


def submission(tls: str = "none") -> Listener:
    return Listener.model_validate({"address": "127.0.0.1:587", "kind": "submission", "tls": tls})


def new_session(listener: Listener | None = None, client: Client = LOOPBACK, **limits: object) -> Session:
    budget = Budget(1_000_000)
    session = Session(listener or relay(), Limits.model_validate(limits), "mx.test", client, budget, now=lambda: NOW)
    session.greet()
    assert session.take_output() == b"220 mx.test ESMTP Fairlead\r\n"
    return session


def say(session: Session, data: bytes) -> bytes:
    session.receive(data)
    return session.take_output()


def greeted(listener: Listener | None = None, client: Client = LOOPBACK, **limits: object) -> Session:
    session = new_session(listener, client, **limits)
    assert say(session, b"EHLO client.test\r\n").startswith(b"250-mx.test\r\n250-PIPELINING\r\n")
    return session


def codes(output: bytes) -> list[int]:
    return [int(line[:3]) for line in output.splitlines() if line[3:4] == b" "]


def test_replies_to_a_pipelined_group_come_together():
    session = greeted()
    output = say(session, MAIL)
    assert codes(output) == [250, 250, 354]
    assert say(session, b"Subject: x\r\n\r\nhello\r\n") == b""
    assert say(session, b".\r\nNOOP\r\n") == b""
    assert session.question == Accept(
        Envelope(sender="a@alice.test", recipients=(Recipient("b@remote.test"),)), b"Subject: x\r\n\r\nhello\r\n"
    )
    session.answer(QUEUED)
    assert codes(session.take_output()) == [250, 250]


def test_an_error_within_a_group_leaves_the_session_in_step():
    session = greeted()
    group = b"MAIL FROM:<a@alice.test>\r\nRCPT TO:<nobody>\r\nRCPT TO:<b@remote.test>\r\nBOGUS\r\nDATA\r\n"
    assert codes(say(session, group)) == [250, 501, 250, 500, 354]
    assert say(session, b"x\r\n.\r\n") == b""
    session.answer(Reply(554, "5.6.0", "no"))
    assert codes(session.take_output()) == [554]
    assert codes(say(session, b"MAIL FROM:<>\r\nRCPT TO:<nobody>\r\nDATA\r\nNOOP\r\n")) == [250, 501, 554, 250]


def test_the_parameters_of_the_envelope_arrive():
    session = greeted()
    say(session, b"MAIL FROM:<a@alice.test> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=Qq+2B\r\n")
    say(session, "RCPT TO:<é@remote.test> NOTIFY=NEVER ORCPT=rfc822;X+2By@z.test\r\n".encode())
    say(session, b"DATA\r\n")
    say(session, b".\r\n")
    assert isinstance(session.question, Accept)
    assert session.question.envelope == Envelope(
        sender="a@alice.test",
        recipients=(Recipient("é@remote.test", Notify.NEVER, "rfc822;X+2By@z.test"),),
        eight_bit=True,
        smtputf8=True,
        ret="HDRS",
        envid="Qq+2B",
    )
    assert session.dialog.trace.protocol == "UTF8SMTP"


def test_eight_bit_content_is_noticed_without_being_declared():
    session = greeted()
    say(session, MAIL)
    say(session, b"\xfc\r\n.\r\n")
    assert isinstance(session.question, Accept)
    assert session.question.envelope.eight_bit


def test_a_recipient_named_twice_is_one():
    session = greeted()
    say(session, b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<c@x.test>\r\nDATA\r\n")
    say(session, b".\r\n")
    assert isinstance(session.question, Accept)
    assert [each.address for each in session.question.envelope.recipients] == ["b@x.test", "c@x.test"]


def answer(session: Session, accepted: list[bytes]) -> None:
    """Answer what is asked as a shell would that knows Alice."""
    question = session.question
    if isinstance(question, Accept):
        accepted.append(question.content)
        session.answer(QUEUED)
    elif isinstance(question, Authenticate):
        good = question.login == ("alice", "secret")
        session.answer_login(Identity("alice", "alice") if good else None)


DIALOG = (
    b"NOOP\r\nEHLO client.test\r\nAUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\nMAIL FROM:<a@alice.test>\r\nRCPT TO:<x>\r\n"
    b"RCPT TO:<b@remote.test>\r\nDATA\r\nFrom: a\r\n\r\n..dot\r\n.\r\nWHAT\r\n"
    b"MAIL FROM:<>\r\nRSET\r\nVRFY x\r\nQUIT\r\n"
)


def run(parts: list[bytes]) -> tuple[bytes, list[bytes]]:
    session = greeted(submission())
    accepted: list[bytes] = []
    output = b""
    for part in parts:
        session.receive(part)
        while session.question is not None:
            answer(session, accepted)
        output += session.take_output()
    assert session.closed
    return output, accepted


@settings(max_examples=50)
@given(st.lists(st.integers(0, len(DIALOG)), max_size=20).map(sorted))
def test_a_dialog_goes_the_same_way_however_it_is_cut(cuts: list[int]):
    after_data = DIALOG.index(b"DATA\r\n") + 6  # content may not come before the reply to DATA
    cuts = sorted([*cuts, after_data])
    parts = [DIALOG[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(DIALOG)], strict=True)]
    output, accepted = run([part for part in parts if part])
    assert (output, accepted) == run([DIALOG[:after_data], DIALOG[after_data:]])
    assert accepted == [b"From: a\r\n\r\n.dot\r\n"]
    assert codes(output) == [250, 250, 334, 334, 235, 250, 501, 250, 354, 250, 500, 250, 250, 252, 221]


@given(st.lists(st.sampled_from(
    [b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n", b"DATA\r\n", b"RSET\r\n",
     b".\r\n", b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n", b"*\r\n", b"STARTTLS\r\n", b"\xff\r\n", b"x" * 600 + b"\r\n",
     b"\r\n", b"NOOP\n", b"\r", b"QUIT\r\n", base64.b64encode(b"\0alice\0secret") + b"\r\n"]
), max_size=25), st.sampled_from([relay(), submission(), submission("starttls")]))  # fmt: skip
def test_no_order_of_commands_breaks_it_or_gets_mail_past_the_rules(said: list[bytes], listener: Listener):
    session = new_session(listener)
    for each in said:
        session.receive(each)
        while session.question is not None:
            if isinstance(session.question, StartTls):
                session.tls_started("TLSv1.3 X")
            elif isinstance(session.question, Authenticate):
                answer(session, [])
            else:
                assert isinstance(session.question, Accept)
                assert listener.kind == "relay" or session.dialog.identity is not None
                session.answer(QUEUED)
        assert all(line[:3].isdigit() for line in session.take_output().splitlines())


AROUND = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n\0", b"\n\r", b"\0\r\n")
SMUGGLING = [left + b"." + right for left in AROUND for right in AROUND if (left, right) != (b"\r\n", b"\r\n")]


@pytest.mark.parametrize("listener", [relay(), relay(bare_newlines="fix")], ids=["refuse", "fix"])
@pytest.mark.parametrize("sequence", SMUGGLING, ids=repr)
def test_nothing_is_smuggled_however_it_is_cut(sequence: bytes, listener: Listener):
    data = b"Subject: x\r\n\r\nbody" + sequence + b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<v@x.test>\r\nDATA\r\n"
    for cut in range(len(data)):
        session = greeted(listener)
        say(session, MAIL)
        output = b""
        for part in (data[:cut], data[cut:]):
            output += say(session, part)
            if isinstance(session.question, Accept):
                assert session.question.content.endswith(b"body\r\n")
                session.answer(QUEUED)
                output += session.take_output()
        assert codes(output) in ([550], [], [250, 500])
        assert (codes(output) == [250, 500]) is (sequence == b"\r\n.\r\n\0")
        assert session.closed or session.busy


# Framing of commands


@pytest.mark.parametrize(
    "bare", [b"NOOP\n", b"NOOP\nNOOP\r\n", b"NOOP\rNOOP\r\n", b"NO\0OP\r\n", b"\n", b"NOOP\r\r\n", b"\0"]
)
def test_only_crlf_ends_a_command_and_anything_else_ends_the_session(bare: bytes):
    for cut in range(len(bare)):
        session = greeted()
        output = say(session, bare[:cut]) + say(session, bare[cut:])
        assert output == replies.BARE_IN_COMMAND.wire()
        assert session.closed
        assert session.abrupt
        assert say(session, b"NOOP\r\n") == b""


def test_lines_that_are_too_long_are_refused_and_passed_over():
    session = greeted()
    assert codes(say(session, b"NOOP " + b"x" * 505 + b"\r\n")) == [250]
    assert say(session, b"NOOP " + b"x" * 506 + b"\r\nNOOP\r\n") == replies.LINE_TOO_LONG.wire() + replies.OK.wire()
    for _ in range(100):
        assert say(session, b"x" * 10_000) == b""
    assert session._budget.used < 20_000
    assert say(session, b"\r") == b""
    assert say(session, b"\nNOOP\r\n") == replies.LINE_TOO_LONG.wire() + replies.OK.wire()
    long = b"RCPT TO:<b@x.test> ORCPT=rfc822;" + b"x" * 493 + b"\r\n"
    assert codes(say(session, b"MAIL FROM:<>\r\n" + long)) == [250, 250]
    assert codes(say(session, b"AUTH PLAIN " + b"x" * 20_000 + b"\r\n")) == [500]


def test_commands_must_be_utf8():
    assert say(greeted(), b"MAIL FROM:<\xff@x.test>\r\n") == replies.NOT_UTF8.wire()


def test_content_sent_with_data_ends_the_session():
    session = greeted()
    output = say(session, MAIL + b"x\r\n.\r\n")
    assert codes(output) == [250, 250, 554]
    assert session.closed
    assert session.question is None


def test_a_browser_is_hung_up_on():
    session = new_session()
    assert say(session, b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b.test>\r\n") == replies.NOT_SMTP.wire()
    assert session.closed


def test_many_commands_at_once_take_turns_with_other_sessions():
    session = greeted()
    output = say(session, b"NOOP\r\n" * 300)
    while session.behind:
        assert 0 < output.count(b"250 ") < 300
        session.resume()
        output += session.take_output()
    assert output.count(b"250 ") == 300


# Limits


def test_too_many_errors_commands_and_recipients():
    session = greeted(errors=3)
    assert codes(say(session, b"X\r\n" * 10)) == [500, 500, 500, 500, 421]
    assert session.closed
    session = greeted(commands=3)
    assert codes(say(session, b"NOOP\r\n" * 10)) == [250, 250, 421]
    session = greeted(recipients=2)
    say(session, b"MAIL FROM:<>\r\n")
    assert codes(b"".join(say(session, b"RCPT TO:<b%d@x.test>\r\n" % n) for n in range(3))) == [250, 250, 452]
    assert codes(say(session, b"DATA\r\n")) == [354]


def test_a_message_over_the_size_is_refused_at_its_end_and_the_session_goes_on():
    session = greeted(size=2000)
    assert codes(say(session, b"MAIL FROM:<> SIZE=2001\r\n")) == [552]
    say(session, MAIL)
    assert say(session, b"x" * 2000) == b""
    assert say(session, b"x" * 2000) == b""
    assert say(session, b"\r\n.\r\n" + MAIL) == replies.TOO_BIG.wire() + b"".join(
        each.wire() for each in (replies.SENDER_OK, replies.RECIPIENT_OK, replies.GO_AHEAD)
    )


def test_octets_held_by_all_sessions_are_bounded():
    budget = Budget(100_000)
    sessions = [Session(relay(), Limits(), "mx.test", LOOPBACK, budget, now=lambda: NOW) for _ in range(3)]
    for session in sessions:
        say(session, b"EHLO x\r\n" + MAIL)
    each = budget.used // 3  # for its recipient
    say(sessions[0], b"x" * 60_000)
    say(sessions[1], b"x" * 60_000)
    assert budget.used == 120_000 + 3 * each
    assert codes(say(sessions[1], b"\r\n.\r\n")) == [452]
    assert budget.used == 60_000 + 2 * each
    assert say(sessions[0], b"\r\n.\r\n") == b""
    assert isinstance(sessions[0].question, Accept)
    assert budget.used == 60_002 + 2 * each  # until it is answered
    sessions[0].answer(QUEUED)
    assert budget.used == each
    say(sessions[2], (b"x" * 998 + b"\r\n") * 200)
    assert codes(say(sessions[1], b"MAIL FROM:<>\r\n")) == [452]
    sessions[2].release()
    assert budget.used == 0
    assert codes(say(sessions[1], b"MAIL FROM:<>\r\n")) == [250]


def test_what_comes_while_a_question_is_open_is_kept_up_to_a_bound():
    session = greeted()
    say(session, MAIL)
    say(session, b".\r\nNOOP\r\n")
    assert not session.hungry
    assert say(session, b"NOOP\r\n") == b""
    session.answer(QUEUED)
    assert codes(session.take_output()) == [250, 250, 250]
    say(session, MAIL)
    say(session, b".\r\n")
    assert say(session, b"x" * 2_000_000) == replies.TOO_MUCH_INPUT.wire()
    assert session.closed


# Large content


def large() -> Session:
    session = greeted()
    say(session, MAIL)
    say(session, b"Subject: x\r\n\r\n" + b"x" * 998 + b"\r\n")
    say(session, (b"y" * 998 + b"\r\n") * 300)
    assert isinstance(session.question, Store)
    assert len(session.question.content) > STORE_AT
    return session


def test_large_content_is_stored_as_it_comes():
    session = large()
    assert isinstance(session.question, Store)
    content = session.question.content
    say(session, (b"z" * 998 + b"\r\n") * 10 + b".\r\n")
    session.answer()
    assert isinstance(session.question, Accept)
    assert (content + session.question.content).count(b"\r\n") == 313
    session.answer(QUEUED)
    assert session.take_output() == QUEUED.wire()


def test_a_stretch_that_cannot_be_stored_is_answered_at_the_end():
    session = large()
    session.answer(replies.SPOOL_FULL)
    assert say(session, (b"z" * 998 + b"\r\n") * 1000) == b""
    assert session.question is None
    assert say(session, b".\r\nNOOP\r\n") == replies.SPOOL_FULL.wire() + replies.OK.wire()


@pytest.mark.parametrize("together", [False, True])
def test_stored_content_is_abandoned_when_the_message_is_refused_later(together: bool):
    session = large()
    session.answer()
    line, end = b"z" * 70_000 + b"\r\n", b".\r\n"
    if together:
        say(session, line + end)
        assert isinstance(session.question, Abandon)
        session.answer()
    else:
        say(session, line)
        assert isinstance(session.question, Abandon)
        session.answer()
        assert session.take_output() == b""
        assert say(session, line) == b""
        assert session.question is None
        session.receive(end)
    assert session.take_output() == replies.LINE_IN_CONTENT_TOO_LONG.wire()
    assert codes(say(session, MAIL)) == [250, 250, 354]


# Logging in, TLS


def test_what_is_offered_depends_on_listener_client_and_tls():
    def offers(session: Session) -> bytes:
        return say(session, b"EHLO x\r\n")

    assert b"AUTH PLAIN LOGIN" in offers(new_session(submission()))
    assert b"AUTH" not in offers(new_session(submission(), REMOTE))
    assert b"AUTH" not in offers(new_session(relay()))
    plain = offers(new_session(submission("starttls")))
    assert b"STARTTLS" in plain
    assert b"AUTH" not in plain
    assert b"REQUIRETLS" not in plain
    session = new_session(submission("starttls"), REMOTE)
    session.tls_started("TLSv1.3 X")
    secure = offers(session)
    assert b"STARTTLS" not in secure
    assert b"AUTH PLAIN LOGIN" in secure
    assert b"-REQUIRETLS\r\n" in secure
    for wanted in (b"PIPELINING", b"SIZE 52428800", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES", b"DSN"):
        assert wanted in secure
    assert b"CHUNKING" not in secure


def test_passwords_are_not_asked_for_where_they_could_be_read():
    for session in (greeted(submission(), REMOTE), greeted(submission("starttls"))):
        assert say(session, b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n") == replies.AUTH_NEEDS_TLS.wire()
        assert session.question is None
    assert codes(say(greeted(relay()), b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")) == [502]


def log_in(session: Session) -> None:
    say(session, b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")
    assert session.question == Authenticate(("alice", "secret"), 0)
    session.answer_login(Identity("alice", "alice"))
    assert codes(session.take_output()) == [235]


def test_submission_begins_with_a_login():
    session = greeted(submission())
    assert say(session, b"MAIL FROM:<>\r\n") == replies.AUTH_FIRST.wire()
    log_in(session)
    assert say(session, b"AUTH PLAIN\r\n") == replies.AUTH_ALREADY.wire()
    assert codes(say(session, MAIL)) == [250, 250, 354]
    assert session.dialog.trace.protocol == "ESMTPA"


def test_starttls_forgets_what_was_said_before():
    session = greeted(submission("starttls"))
    assert say(session, b"MAIL FROM:<>\r\n") == replies.STARTTLS_FIRST.wire()
    assert say(session, b"STARTTLS now\r\n") == replies.NO_ARGUMENT.wire()
    assert say(session, b"STARTTLS\r\n") == replies.START_TLS.wire()
    assert not session.hungry
    session.tls_started("TLSv1.3 X")
    assert session.take_output() == b""
    assert say(session, b"AUTH PLAIN\r\n") == replies.HELO_FIRST.wire()
    say(session, b"EHLO x\r\n")
    assert say(session, b"STARTTLS\r\n") == replies.TLS_ALREADY.wire()
    log_in(session)
    say(session, MAIL)
    assert session.dialog.trace.protocol == "ESMTPSA"


def test_starttls_within_a_transaction_is_refused():
    session = greeted(relay(tls="starttls"))
    assert codes(say(session, b"MAIL FROM:<>\r\nSTARTTLS\r\n")) == [250, 503]


@pytest.mark.parametrize("at_once", [False, True])
def test_commands_before_the_handshake_end_the_session(at_once: bool):
    session = greeted(submission("starttls"))
    injected = b"EHLO evil.test\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"
    if at_once:
        output = say(session, b"STARTTLS\r\n" + injected)
        assert output == replies.AFTER_STARTTLS.wire()
    else:
        assert say(session, b"STARTTLS\r\n") == replies.START_TLS.wire()
        assert say(session, injected) == replies.AFTER_STARTTLS.wire()
    assert session.closed


def test_after_three_wrong_logins_the_session_ends():
    session = greeted(submission())
    for failures in range(3):
        say(session, b"AUTH LOGIN YWxpY2U=\r\nd3Jvbmc=\r\n")
        assert session.question == Authenticate(("alice", "wrong"), failures)
        session.take_output()
        session.answer_login(None)
        assert codes(session.take_output())[0] == 535
    assert session.closed
    logged = session.take_refusals()
    assert [str(each.reply)[:9] for each in logged] == ["535 5.7.8"] * 3 + ["421 4.7.0"]
    assert all(each.about in ("'alice'", "''") for each in logged)


def test_a_login_that_is_answered_after_the_end_says_nothing():
    session = greeted(submission())
    say(session, b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")
    session.hang_up(replies.DRAINING)
    session.answer_login(Identity("alice", "alice"))
    assert session.take_output() == replies.DRAINING.wire()


def test_no_secret_is_logged():
    session = greeted(submission("starttls"))
    secret = b"AGFsaWNlAHNlY3JldA=="
    say(session, b"AUTH PLAIN " + secret + b"\r\nAUTH LOGIN\r\n" + secret + b"\r\nPASS " + secret + b"\r\n")
    assert len(session._refused) == 2
    assert all(secret.decode() not in each.about for each in session.take_refusals())


# Open relay


CLASSIC = [
    b"user@remote.test", b"user%remote.test@mx.test", b"user%remote.test", b'"user@remote.test"',
    b'"user%remote.test"', b"user@remote.test@mx.test", b'"user@remote.test"@mx.test', b"@mx.test:user@remote.test",
    b"remote.test!user", b"remote.test!user@mx.test", b"user@[127.0.0.1]", b"user%remote.test@[127.0.0.1]",
    b'"user@remote.test"@[127.0.0.1]', b"user@localhost", b"remote.test!user@[127.0.0.1]", b"postmaster",
    b"user\0@remote.test",
]  # fmt: skip


@pytest.mark.parametrize("recipient", CLASSIC, ids=repr)
@pytest.mark.parametrize("sender", [b"", b"user@mx.test", b"user@[127.0.0.1]", b"user", b"user@localhost"], ids=repr)
@pytest.mark.parametrize("tls", ["none", "starttls"])
def test_no_form_of_address_gets_past_a_missing_login(sender: bytes, recipient: bytes, tls: str):
    for client in (LOOPBACK, REMOTE):
        session = greeted(submission(tls), client)
        output = say(session, b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\n" % (sender, recipient)) + say(session, b"DATA\r\n")
        assert all(code >= 500 for code in codes(output))
        assert session.question is None
        assert not session.busy


# Ends


def test_eof_ends_the_session_after_what_was_asked_is_answered():
    session = greeted()
    say(session, MAIL)
    say(session, b".\r\nNOOP\r\nNO")
    session.eof()
    assert not session.closed
    session.answer(QUEUED)
    assert codes(session.take_output()) == [250, 250]
    assert session.closed
    assert not session.abrupt


def test_eof_within_a_message_discards_it():
    session = greeted()
    say(session, MAIL)
    say(session, b"half of a line")
    session.eof()
    assert session.closed
    assert session.take_output() == b""
    session.release()
    assert session._budget.used == 0


def test_a_retiring_session_ends_at_the_next_command_but_not_within_a_message():
    session = greeted()
    say(session, MAIL)
    session.retire(replies.DRAINING)
    say(session, b".\r\n")
    session.answer(QUEUED)
    assert session.take_output() == QUEUED.wire()
    assert say(session, b"MAIL FROM:<>\r\nNOOP\r\n") == replies.DRAINING.wire()
    assert session.closed
    session = greeted()
    session.retire(replies.DRAINING)
    assert say(session, b"QUIT\r\n") == replies.BYE.wire()


def test_each_kind_of_refusal_is_logged_once():
    session = greeted(errors=100)
    say(session, b"RCPT TO:<a>\r\nWHAT\r\n" * 20)
    assert [(each.reply, each.about) for each in session.take_refusals()] == [
        (replies.MAIL_FIRST, "'RCPT TO:<a>'"),
        (replies.UNKNOWN, "''"),
    ]
    say(session, "MAIL FROM:<\x1b[2Jé@x.test>\r\n".encode())
    assert session.take_refusals()[0].about == "'MAIL FROM:<\\x1b[2J\\xe9@x.test>'"


@pytest.mark.parametrize(
    ("helo", "written"), [(b"mail.test", "mail.test"), (b"[192.0.2.1]", "[192.0.2.1]"), (b"a(b);c", "a?b??c")]
)
def test_the_helo_name_is_made_safe_for_the_trace(helo: bytes, written: str):
    session = new_session()
    assert codes(say(session, b"HELO " + helo + b"\r\n")) == [250]
    assert session.dialog.trace.helo == written
    assert session.dialog.trace.protocol == "SMTP"


@pytest.mark.parametrize("helo", [b"", b" ", b"a b", b"x" * 256, b"a\tb"])
def test_a_helo_without_a_proper_name_is_refused(helo: bytes):
    for verb in (b"EHLO ", b"HELO "):
        session = new_session()
        assert codes(say(session, verb + helo + b"\r\nMAIL FROM:<>\r\n")) == [501, 503]


def test_progress_is_made_by_commands_and_content_not_by_single_octets():
    session = greeted()
    before = session.progress
    for octet in b"NOO":
        session.receive(bytes([octet]))
    assert session.progress == before
    say(session, b"P\r\n" + MAIL)
    before = session.progress
    say(session, b"x")
    assert session.progress == before
    say(session, b"x" * 5000)
    assert session.progress == before + 1


def test_recipients_count_against_the_octets_of_the_process():
    budget = Budget(100_000)
    session = Session(relay(), Limits(), "mx.test", LOOPBACK, budget, now=lambda: NOW)
    session.receive(b"EHLO c.test\r\nMAIL FROM:<a@alice.test>\r\n")
    session.take_output()
    wanted = [b"RCPT TO:<%d@remote.test> ORCPT=rfc822;%s\r\n" % (n, b"x" * 400) for n in range(200)]
    output = b"".join(say(session, command) for command in wanted)
    assert set(codes(output)) == {250, 452}
    assert 100_000 < budget.used < 102_000
    say(session, b"RSET\r\n")
    assert budget.used == 0


def test_each_refused_message_is_logged():
    session = greeted(size=1024)
    for _ in range(2):
        say(session, MAIL)
        say(session, b"x" * 1100 + b"\r\n.\r\n")
    told = [(replies.TOO_BIG, "'message from <a@alice.test>'")] * 2
    assert [(each.reply, each.about) for each in session.take_refusals()] == told
