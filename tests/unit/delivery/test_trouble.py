"""The error policy as a table, and the rules that hold of everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.trouble import (
    HINT_LIMIT,
    Exchange,
    Fault,
    NoWay,
    Stage,
    Trouble,
    hint,
    of_no_way,
    of_trouble,
    retry_after,
    verdicts,
)
from mta.mail.reply import Reply
from mta.mail.result import Result, Scope, Verdict

OK = Reply(250, "", "ok")
GO = Reply(354, "", "go")
replies = st.builds(
    Reply, st.integers(200, 599), st.sampled_from(["", "5.1.1", "5.5.1", "4.2.0", "2.0.0"]), st.just("x")
)


@pytest.mark.parametrize(
    ("stage", "code", "enhanced", "verdict", "scope"),
    [
        (Stage.RCPT, 550, "5.1.1", Verdict.FAILED, Scope.RECIPIENT),
        (Stage.RCPT, 450, "4.2.0", Verdict.DEFERRED, Scope.RECIPIENT),
        (Stage.RCPT, 552, "", Verdict.DEFERRED, Scope.RECIPIENT),
        (Stage.RCPT, 552, "5.5.3", Verdict.DEFERRED, Scope.RECIPIENT),
        (Stage.RCPT, 552, "5.2.2", Verdict.FAILED, Scope.RECIPIENT),
        (Stage.RCPT, 421, "", Verdict.DEFERRED, Scope.HOST),
        (Stage.RCPT, 503, "5.5.1", Verdict.DEFERRED, Scope.HOST),
        (Stage.RCPT, 500, "5.1.1", Verdict.FAILED, Scope.RECIPIENT),
        (Stage.MAIL, 552, "5.3.4", Verdict.FAILED, Scope.MESSAGE),
        (Stage.MAIL, 550, "5.7.1", Verdict.FAILED, Scope.MESSAGE),
        (Stage.MAIL, 502, "", Verdict.DEFERRED, Scope.HOST),
        (Stage.MAIL, 354, "", Verdict.DEFERRED, Scope.HOST),
        (Stage.DATA, 250, "", Verdict.DEFERRED, Scope.HOST),
        (Stage.DATA, 554, "", Verdict.FAILED, Scope.MESSAGE),
        (Stage.DOT, 552, "5.2.3", Verdict.FAILED, Scope.MESSAGE),
        (Stage.DOT, 451, "", Verdict.DEFERRED, Scope.MESSAGE),
        (Stage.DOT, 354, "", Verdict.DEFERRED, Scope.HOST),
        (Stage.GREETING, 554, "5.7.1", Verdict.DEFERRED, Scope.HOST),
        (Stage.HELLO, 550, "", Verdict.DEFERRED, Scope.HOST),
        (Stage.TLS, 554, "", Verdict.DEFERRED, Scope.HOST),
        (Stage.AUTH, 535, "5.7.8", Verdict.DEFERRED, Scope.US),
    ],
)
def test_replies(stage, code, enhanced, verdict, scope):
    reply = Reply(code, enhanced, "text")
    said = {
        Stage.MAIL: Exchange(mail=reply),
        Stage.RCPT: Exchange(mail=OK, rcpts=[reply]),
        Stage.DATA: Exchange(mail=OK, rcpts=[OK], data=reply),
        Stage.DOT: Exchange(mail=OK, rcpts=[OK], data=GO, final=reply),
    }.get(stage, Exchange(trouble=Trouble(stage, reply=reply)))
    assert verdicts(said, 1) == (Result(verdict, reply, scope),)


@pytest.mark.parametrize("fault", Fault)
def test_faults_speak_in_our_own_words(fault):
    result = of_trouble(Trouble(Stage.CONTENT, fault))
    assert not result.remote
    assert result.verdict is (Verdict.FAILED if result.reply.permanent else Verdict.DEFERRED)
    assert result.reply.enhanced.startswith(str(result.reply.code)[0])


def test_after_the_dot_no_other_host_is_asked():
    for fault in (Fault.LOST, Fault.TIMED_OUT, Fault.GARBLED):
        assert Trouble(Stage.CONTENT, fault).elsewhere
        assert not Trouble(Stage.DOT, fault).elsewhere


def test_a_dns_failure_is_never_final_and_what_may_be_a_moment_is_looked_at_twice():
    for why in NoWay:
        first, again = (of_no_way(why, "x.test", rechecked=rechecked).verdict for rechecked in (False, True))
        assert first is (Verdict.DEFERRED if why in (NoWay.DNS, NoWay.UNUSABLE) else Verdict.FAILED)
        assert again is (Verdict.DEFERRED if why is NoWay.DNS else Verdict.FAILED)


@given(
    st.integers(1, 5),
    st.none() | replies,
    st.lists(replies, max_size=5),
    st.none() | replies,
    st.none() | replies,
    st.none() | st.builds(Trouble, st.sampled_from(list(Stage)), st.sampled_from(list(Fault))),
)
def test_one_verdict_each_and_delivered_only_by_the_reply_to_the_dot(recipients, mail, rcpts, data, final, trouble):
    rcpts = rcpts[:recipients]
    said = Exchange(mail=mail, rcpts=rcpts, data=data, final=final, trouble=trouble)
    results = verdicts(said, recipients)
    assert len(results) == recipients
    for number, result in enumerate(results):
        if result.verdict is Verdict.DELIVERED:
            assert mail is not None
            assert mail.positive
            assert final is not None
            assert final.positive
            assert number >= len(rcpts) or rcpts[number].positive
            assert result.reply == final
        if result.remote and not result.reply.permanent:
            assert result.verdict is not Verdict.FAILED


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please try again in 5 minutes", 300),
        ("greylisted; retry in 300 seconds", 300),
        ("Try again in 1 hour.", 3600),
        ("try again later", None),
        ("please wait 10 min", 600),
        ("Greylisting in action, please come back in 00:04:59", 299),
        ("deferred, retry after 90s", 90),
        ("try again in 400 hours", HINT_LIMIT),
        ("try again in 0 seconds", None),
        ("mailbox 12 messages", None),
        ("451 [TSS04] Messages from 192.0.2.1 temporarily deferred", None),
        ("try again in 3 months", None),
        ("", None),
    ],
)
def test_hints(text, seconds):
    assert retry_after(text) == seconds


@given(st.text())
def test_hints_are_bounded(text):
    for said in (text, "try again in " + text):
        wait = retry_after(said)
        assert wait is None or 0 < wait <= HINT_LIMIT


def test_only_deferred_replies_of_peers_give_hints():
    hinting = Reply(451, "", "try again in 5 minutes")
    assert (
        hint((Result(Verdict.DEFERRED, hinting), Result(Verdict.DEFERRED, hinting._replace(text="retry in 60 s"))))
        == 300
    )
    assert hint((Result(Verdict.FAILED, hinting), Result(Verdict.DEFERRED, hinting, remote=False))) is None
