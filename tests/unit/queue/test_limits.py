"""The limits as the dispatcher uses them: rules, pauses, shared limits, memory."""

import math

import msgspec
import pytest

from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue import limits as module
from mta.queue.learned import Paused
from mta.queue.limits import About, Advice, Limits
from mta.queue.shaping import parse

GMAIL = About("192.0.2.1", "gmail", "acme", ("gmail-smtp-in.l.google.com",))
TAKEN = Outcome(
    results=(Result(Verdict.DELIVERED, Reply(250, "2.0.0", "taken")),),
    started_at=0.0,
    ended_at=0.0,
    site="mx",
    reach=Reach.TRANSACTION,
)


def said(line: str, *, remote: bool = True, retry_after: float | None = None, reach: Reach = Reach.SESSION) -> Outcome:
    code, _, text = line.partition(" ")
    reply = Reply.parse(int(code), text)
    verdict = Verdict.FAILED if reply.permanent else Verdict.DEFERRED
    result = Result(verdict, reply, Scope.MESSAGE, remote=remote)
    return Outcome(
        results=(result,),
        started_at=0.0,
        ended_at=0.0,
        site="mx",
        relay="mx.google.com[192.0.2.9]:25",
        reach=reach,
        retry_after=retry_after,
    )


def limits(rules: str = "", more: str = "") -> Limits:
    return Limits(parse(f"providers:\n- name: gmail\n  mx: [google.com]\n  rules: [{rules}]\n{more}", "s.yaml"), 20)


def attempt(what: Limits, about: About, outcome: Outcome | None, now: float = 0.0) -> Advice:
    return what.ended(what.started(about, now), outcome, now)


def test_an_attempt_that_was_taken_changes_nothing() -> None:
    each = limits("{match: taken, action: pause}")
    assert attempt(each, GMAIL, TAKEN) == Advice()
    assert each.when(GMAIL, 0.0) == 0.0


@pytest.mark.parametrize(
    ("of", "held"),
    [("site", {"same", "tenant", "source"}), ("tenant", {"same", "source"})],
)
def test_a_pause_is_of_the_site_or_of_the_tenant_at_it(of: str, held: set[str]) -> None:
    each = limits(f"{{match: block list, action: pause, of: {of}, lasts: 600}}")
    assert attempt(each, GMAIL, said("550 5.7.1 you are on our block list")).reasons != ()
    others = {
        "same": GMAIL,
        "tenant": GMAIL._replace(tenant="other"),
        "source": GMAIL._replace(source="192.0.2.2"),
        "site": GMAIL._replace(site="elsewhere", hosts=("mx.google.com",)),
    }
    assert {name for name, about in others.items() if each.when(about, 10.0) == 600.0} == held
    assert {name for name, about in others.items() if each.when(about, 600.0) == 600.0} == set(others)


def test_a_source_is_parked_for_a_provider_and_paused_at_a_site_whose_provider_nobody_knows() -> None:
    each = limits("{match: block list, action: pause, lasts: 600}", "rules: [{match: block, action: pause, lasts: 60}]")
    unknown = GMAIL._replace(site="x", hosts=("mx.example",))
    nowhere = GMAIL._replace(source="", site="gmail too")  # no source is configured
    advice = [attempt(each, about, said("550 5.7.1 on our block list")) for about in (GMAIL, unknown, nowhere)]
    assert [each.park_for for each in advice] == [600.0, 0.0, 0.0]
    others = [GMAIL, unknown, unknown._replace(source="192.0.2.2"), nowhere]
    assert [each.when(about, 10.0) for about in others] == [10.0, 60.0, 10.0, 600.0]


def test_a_rule_that_counts_comes_into_effect_at_the_last_of_them_within_its_time() -> None:
    each = limits("{match: spam, action: pause, of: site, after: 3, within: 100}")
    for at in (0.0, 60.0, 120.0, 180.0):
        assert attempt(each, GMAIL, said("550 5.7.1 spam"), at) == Advice()
        assert each.when(GMAIL, at) == at
    assert attempt(each, GMAIL, said("550 5.7.1 spam"), 181.0).reasons != ()
    assert each.when(GMAIL, 181.0) == 181.0 + 1800.0
    assert attempt(each, GMAIL, said("550 5.7.1 spam"), 182.0) == Advice()  # it begins to count anew


def test_other_providers_rules_do_not_match_and_rules_for_all_do() -> None:
    each = limits("{match: spam, action: pause}", "rules: [{match: late, action: hold}]")
    other = GMAIL._replace(site="x", hosts=("mx.example",))
    assert attempt(each, other, said("550 spam")) == Advice()
    assert attempt(each, other, said("450 late")).hold
    assert attempt(each, GMAIL, said("450 late")).hold


def test_what_fairlead_says_itself_never_matches() -> None:
    each = limits("{match: connection failed, action: pause}", "rules: [{match: connection, action: bounce}]")
    assert attempt(each, GMAIL, said("451 4.4.1 connection failed", remote=False)) == Advice()
    assert attempt(each, GMAIL, said("451 4.4.1 connection failed")).bounced != ()


def test_only_replies_that_a_bounce_rule_matches_bounce() -> None:
    each = limits("", "rules: [{match: never, action: bounce}, {match: later, action: refusal}]")
    replies = [Reply(450, "4.2.1", "never"), Reply(450, "4.2.1", "later"), Reply(450, "4.2.2", "full")]
    outcome = msgspec.structs.replace(
        TAKEN, results=tuple(Result(Verdict.DEFERRED, reply) for reply in (*replies, replies[0]))
    )
    assert attempt(each, GMAIL, outcome).bounced == (replies[0],)


def test_slowed_to_a_share_and_not_once_for_each_of_those_under_way() -> None:
    each = limits("{match: TSS04, action: slow, factor: 0.5, lasts: 600}")
    for number in range(600):
        attempt(each, GMAIL, TAKEN, number / 10)
    under_way = [each.started(GMAIL, 60.0) for _ in range(3)]
    for start in under_way:
        each.ended(start, said("421 4.7.0 [TSS04] deferred"), 60.5)
    assert each.rows(61.0)[0].rate == pytest.approx(5.0, rel=0.05)


def test_try_again_in_ten_minutes_is_heard_by_all_to_that_site() -> None:
    each = limits()
    attempt(each, GMAIL, said("421 4.7.0 try again in 10 minutes", retry_after=600.0))
    assert each.when(GMAIL._replace(tenant="other"), 1.0) == 600.0


def test_what_one_message_is_told_stops_the_others_for_ten_minutes_at_most() -> None:
    each = limits()
    attempt(each, GMAIL, said("421 4.7.0 too much for this domain, try again in 5 hours", retry_after=18_000.0))
    assert each.when(GMAIL, 1.0) == pytest.approx(600.0, abs=1)


def test_a_longer_pause_comes_before_a_shorter_one() -> None:
    each = limits("{match: one, action: pause, of: site, lasts: 600}, {match: two, action: pause, of: site, lasts: 60}")
    attempt(each, GMAIL, said("450 two"))
    assert each.when(GMAIL, 0.0) == 60.0
    attempt(each, GMAIL, said("450 one"))
    attempt(each, GMAIL, said("450 two"))
    assert each.when(GMAIL, 0.0) == 600.0


def test_a_recipient_that_is_to_be_tried_later_pauses_nobody_else() -> None:
    each = limits()
    attempt(each, GMAIL, said("450 4.2.1 try again in 10 minutes", retry_after=600.0, reach=Reach.TRANSACTION))
    assert each.when(GMAIL, 1.0) == 1.0


@pytest.mark.parametrize(("asked", "waits"), [(None, 300.0), (60.0, 60.0)])
def test_greylisting_is_no_refusal_and_comes_again_from_the_same_source(asked: float | None, waits: float) -> None:
    each = limits("", "rules: [{match: greylist, action: greylist, lasts: 300}]")
    advice = attempt(each, GMAIL, said("421 4.7.0 Greylisted", retry_after=asked))
    assert (advice.greylisted, advice.retry_after) == (True, waits)
    assert each.when(GMAIL, 0.0) == 0.0


def test_a_refusal_in_other_words_than_421_teaches_the_rate() -> None:
    each = limits("{match: rate limit, action: refusal}")
    attempt(each, GMAIL, said("451 4.7.1 rate limit exceeded"))
    assert each.rows(0.0)[0].rate is not None


def test_limits_by_pairs_hold_over_all_sites_of_a_provider() -> None:
    each = limits("", "limits: [{by: [tenant, provider], messages: 6/1m, burst: 2}]")
    elsewhere = GMAIL._replace(site="workspace", hosts=("aspmx.l.google.com",))
    attempt(each, GMAIL, TAKEN)
    attempt(each, elsewhere, TAKEN)
    assert each.when(GMAIL, 0.0) == 10.0
    assert each.when(GMAIL._replace(tenant="other"), 0.0) == 0.0
    assert each.when(About("192.0.2.1", "x", "acme", ("mx.example",)), 0.0) == 0.0


def test_deliveries_per_connection_are_the_least_that_anybody_says() -> None:
    each = Limits(parse("providers: [{name: g, mx: [google.com], deliveries_per_connection: 50}]", "s.yaml"), 20)
    assert each.deliveries_per_connection(GMAIL, 1000) == 50
    assert each.deliveries_per_connection(GMAIL, 10) == 10
    assert each.deliveries_per_connection(GMAIL._replace(hosts=("mx.example",)), 1000) == 1000


def test_an_attempt_that_came_to_nothing_gives_its_place_back() -> None:
    each = limits()
    starts = [each.started(GMAIL, 0.0) for _ in range(5)]
    assert each.when(GMAIL, 0.0) == math.inf
    each.ended(starts[0], None, 0.0)
    assert each.when(GMAIL, 0.0) == 0.0


NOBODY = Outcome(
    results=(Result(Verdict.DEFERRED, Reply(451, "4.3.2", "shutting down"), Scope.US, remote=False),),
    started_at=0.0,
    ended_at=0.0,
    site="mx",
)


@pytest.mark.parametrize("nothing", [None, NOBODY])
@pytest.mark.parametrize(
    "allowed",
    [
        "providers: [{name: g, mx: [google.com], messages: 1/1h}]",
        "providers: [{name: g, mx: [google.com], new_connections: 1/1h}]",
        "limits: [{by: [tenant], messages: 1/1h}]",
    ],
)
def test_what_nobody_was_asked_for_costs_no_token(allowed: str, nothing: Outcome | None) -> None:
    each = Limits(parse(allowed, "s.yaml"), 20)
    for _ in range(3):
        assert each.when(GMAIL, 5.0) == 5.0
        attempt(each, GMAIL, nothing, 5.0)
    attempt(each, GMAIL, msgspec.structs.replace(TAKEN, dialled=1), 5.0)
    assert each.when(GMAIL, 5.0) == 3605.0


def test_what_nobody_was_asked_for_is_not_of_the_learned_rate() -> None:
    each = limits()
    attempt(each, GMAIL, said("421 4.7.0 enough"))
    now = each.when(GMAIL, 0.0)
    for _ in range(100):
        assert each.when(GMAIL, now) == now
        attempt(each, GMAIL, None, now)
    start = each.started(GMAIL, now)
    attempt(each, GMAIL, said("421 4.7.0 enough"), now)
    held = each.when(GMAIL, now)
    each.ended(start, None, now)
    assert each.when(GMAIL, now) == held  # the pause that came meanwhile is not cut short


def test_what_is_in_the_way_is_named() -> None:
    each = limits(
        "{match: one, action: pause, of: tenant, lasts: 90}, {match: two, action: pause, of: site, lasts: 600}",
        "limits: [{by: [tenant, provider], messages: 1/1m}, {by: [tenant], messages: 1/1s}]",
    )
    assert each.held_by(GMAIL, 0.0) == ()
    attempt(each, GMAIL, TAKEN)
    assert each.held_by(GMAIL, 0.0) == ("tenant", "provider")
    assert each.held_by(GMAIL._replace(site="x", hosts=()), 0.0) == ("tenant",)
    attempt(each, GMAIL._replace(tenant="b"), said("450 one"), 1.0)
    assert each.held_by(GMAIL._replace(tenant="b"), 1.0) == ("tenant", "site")
    attempt(each, GMAIL._replace(tenant="b"), said("450 two"), 1.0)
    assert each.held_by(GMAIL._replace(tenant="c"), 1.0) == ("site",)
    attempt(each, GMAIL._replace(tenant="d", site="y"), said("421 4.7.0 enough"), 1.0)
    assert each.held_by(GMAIL._replace(tenant="e", site="y"), 1.0) == ("source", "site")


def test_pauses_and_lessons_outlive_the_process_by_wall_time() -> None:
    each = limits("{match: block list, action: pause, of: tenant, lasts: 600}")
    attempt(each, GMAIL, said("550 5.7.1 block list"), now=100.0)
    attempt(each, GMAIL, said("421 4.7.0 enough"), now=100.0)
    learned, pauses = each.learned(now=200.0, wall=1e9)
    again = limits()
    again.recall(learned, pauses, now=0.0, wall=1e9 + 50)
    assert again.when(GMAIL, 0.0) == 450.0
    assert again.rows(0.0)[0].rate == each.rows(200.0)[0].rate
    late = limits()
    late.recall(learned, pauses, now=0.0, wall=1e9 + 8 * 86400)
    assert late.rows(0.0) == []
    early = limits()  # the wall clock was set back: what is from the future is not believed
    early.recall(learned, pauses, now=0.0, wall=1e9 - 8 * 86400)
    assert early.rows(0.0) == []
    assert early.when(GMAIL, 0.0) == 0.0


def test_what_was_recalled_keeps_to_its_provider_from_the_first_attempt_on() -> None:
    shaping = parse("providers: [{name: g, mx: [google.com], connections: 2}]", "s.yaml")
    before = Limits(shaping, 20)
    attempt(before, GMAIL, said("421 4.7.0 enough"))
    after = Limits(shaping, 20)
    after.recall(*before.learned(0.0, 1e9), now=1000.0, wall=1e9)
    now, starts = 1000.0, 0
    while (now := max(now, after.when(GMAIL, now))) < math.inf:
        after.started(GMAIL, now)
        starts += 1
    assert starts == 2


def test_to_forget_a_site_is_to_begin_again_with_those_at_work_still_counted() -> None:
    each = limits("{match: block list, action: pause, of: site}")
    under_way = each.started(GMAIL, 0.0)
    attempt(each, GMAIL, said("421 4.7.0 block list"))
    each.forget("gmail")
    assert each.when(GMAIL, 0.0) == 0.0
    assert each.rows(0.0)[0].in_flight == 1
    each.ended(under_way, TAKEN, 1.0)
    assert each.rows(0.0)[0].in_flight == 0


def test_to_forget_a_site_is_to_count_anew() -> None:
    """Red when what was counted stays: the first complaint after an operator had set things right paused the site."""
    each = limits("{match: spam, action: pause, after: 3, within: 600}")
    for _ in range(2):
        attempt(each, GMAIL, said("550 5.7.1 spam"))
        attempt(each, GMAIL._replace(site="elsewhere"), said("550 5.7.1 spam"))
    each.forget("gmail")
    assert attempt(each, GMAIL, said("550 5.7.1 spam")) == Advice()
    assert attempt(each, GMAIL._replace(site="elsewhere"), said("550 5.7.1 spam")).reasons == (
        "action=pause of=source match='spam'",
    )
    closed = msgspec.structs.replace(TAKEN, closed_after=7)
    for _ in range(2):
        attempt(each, GMAIL, closed)
    each.forget("gmail")
    attempt(each, GMAIL, closed)
    assert each.deliveries_per_connection(GMAIL, 100) == 100


def test_a_row_shows_what_keeps_a_site() -> None:
    each = limits("{match: block list, action: pause, of: site, lasts: 600}")
    attempt(each, GMAIL, said("550 5.7.1 you are on our block list"))
    row = each.rows(100.0)[0]
    assert (row.site, row.in_flight, row.paused_for, row.silent_for) == (GMAIL.site, 0, 500.0, 100.0)
    assert row.paused_because == row.reply == "550 5.7.1 you are on our block list"
    assert each.rows(700.0)[0].paused_for == 0.0


def test_of_a_long_reply_a_line_is_remembered() -> None:
    """Red when all of it is: 16,384 sites of a stranger's could have a gigabyte, and `queue top` no answer at all."""
    each = limits("{match: block list, action: pause, of: site, lasts: 600}")
    attempt(each, GMAIL, said("550 5.7.1 block list " + "x" * 60_000))
    row = each.rows(100.0)[0]
    assert len(row.reply) == len(row.paused_because) == len("550 5.7.1 ") + 480
    [paused] = each.learned(100.0, 1e9)[1]
    assert paused.reason == row.reply


def test_a_tenant_that_is_paused_and_a_probe_are_shown() -> None:
    each = limits("{match: spam, action: pause, of: tenant, lasts: 600}")
    attempt(each, GMAIL, said("550 5.7.1 spam"))
    assert each.rows(100.0)[0].tenants_paused == ("acme",)
    assert each.rows(700.0)[0].tenants_paused == ()
    for _ in range(6):
        attempt(each, GMAIL, said("554 5.3.2 no", reach=Reach.HOST), 700.0)
    assert not each.rows(700.0)[0].probing
    start = each.started(GMAIL, each.when(GMAIL, 700.0))
    assert each.rows(800.0)[0].probing
    each.ended(start, TAKEN, 800.0)
    assert not each.rows(800.0)[0].probing


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_a_pause_that_is_all_that_is_known_is_shown_and_goes(tenant: str) -> None:
    """Red when rows are of paces alone: after a restart nobody was told why a site got nothing for hours."""
    each = limits()
    each.recall([], [Paused(site="gmail", tenant=tenant, until=1600.0, reason="550 block list")], now=0.0, wall=1000.0)
    assert each.when(GMAIL, 0.0) == 600.0
    [row] = each.rows(100.0)
    assert row.site == "gmail"
    assert (row.paused_for, row.tenants_paused) == ((0.0, (tenant,)) if tenant else (500.0, ()))
    assert each.rows(600.0) == []


@pytest.mark.parametrize("hours", [0, 1])
def test_dead_sites_are_not_remembered_for_ever_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Red when a dead site is never at rest: 100,000 of them were 183 MB."""
    monkeypatch.setattr(module, "_SWEPT_AT", 10)
    monkeypatch.setattr(module, "_MOST", 50)
    each = limits()
    for number in range(300):
        dead = GMAIL._replace(site=f"dead {number}", hosts=())
        for _ in range(6):
            attempt(each, dead, said("554 5.3.2 no", reach=Reach.HOST), float(number))
        assert each.when(dead, float(number)) > number
    assert len(each.rows(300.0)) <= 150
    for number in range(300):
        attempt(each, GMAIL._replace(site=f"plain {number}", hosts=()), TAKEN, hours * 3600.0 + 300.0 + number)
    sites = [row.site for row in each.rows(700.0)]
    assert len(sites) <= 150
    assert hours == 0 or not any(site.startswith("dead") for site in sites)


def test_pauses_and_counts_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEPT_AT", 10)
    monkeypatch.setattr(module, "_MOST", 50)
    each = limits("{match: spam, action: pause, of: site, lasts: 9000}, {match: spam, action: hold, after: 9}")
    for number in range(1000):
        attempt(each, GMAIL._replace(site=f"{number}"), said("550 5.7.1 spam"))
    assert max(len(each._pauses), len(each._matched), len(each._paces)) <= 300


def test_memory_is_bounded_and_what_is_at_work_or_paused_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEPT_AT", 10)
    monkeypatch.setattr(module, "_MOST", 20)
    each = limits(
        "{match: block list, action: pause, of: site, lasts: 100000}, "
        "{match: enough, action: hold, after: 9, within: 9}"
    )
    working = GMAIL._replace(site="working")
    under_way = each.started(working, 0.0)
    attempt(each, GMAIL._replace(site="paused"), said("550 5.7.1 block list"))
    for number in range(500):
        attempt(
            each, GMAIL._replace(site=f"refused {number}", tenant=str(number)), said("421 4.7.0 enough"), float(number)
        )
        attempt(each, GMAIL._replace(site=f"plain {number}"), TAKEN, float(number))
    sites = {row.site for row in each.rows(500.0)}
    assert len(sites) < 100
    assert "working" in sites
    assert len(each._matched) < 100
    assert each.when(GMAIL._replace(site="paused"), 500.0) == 100000.0
    each.ended(under_way, TAKEN, 500.0)


def test_what_an_attempt_took_itself_is_not_in_its_way_elsewhere() -> None:
    """Red when its own token counts: it is told to wait each time, and never goes."""
    each = limits(more="limits: [{by: [tenant], messages: 1/1m}, {by: [tenant, provider], messages: 1/1h}]")
    elsewhere = GMAIL._replace(site="x", hosts=("mx.example",))
    start = each.started(GMAIL, 0.0)
    assert each.when(elsewhere, 1.0) == 60.0
    assert each.when(elsewhere, 1.0, instead_of=start) == 1.0
    other = each.started(elsewhere._replace(tenant="other", hosts=GMAIL.hosts), 1.0)
    assert each.when(GMAIL, 2.0, instead_of=other) == 3600.0
    assert each.when(GMAIL, 2.0, instead_of=start) == 2.0
    each.goes_elsewhere(start, elsewhere, 2.0)
    assert (each.when(elsewhere, 3.0), each.when(GMAIL, 3.0)) == (62.0, 62.0)


def test_a_tenant_is_paused_by_the_words_that_were_said_of_its_own_mail() -> None:
    """Red when it is the last reply that taught something of the site, which may have been of another's."""
    each = limits("{match: too many, action: pause, of: tenant}")
    attempt(each, GMAIL._replace(tenant="other"), said("550 5.1.1 there is no Bob"))
    login = said("454 4.7.0 too many logins")
    ours = msgspec.structs.replace(login.results[0], scope=Scope.US)
    attempt(each, GMAIL, msgspec.structs.replace(login, results=(ours, TAKEN.results[0])))
    assert each.why(GMAIL, 1.0).reply == "454 4.7.0 too many logins"
