"""Shaping rules: every mistake at once, no pattern costs much, ours match what providers say and not what we say."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config import ConfigError
from mta.delivery import trouble
from mta.delivery.trouble import Fault, NoWay, Stage, Trouble
from mta.ingress import replies
from mta.mail.reply import Reply
from mta.queue import transitions
from mta.queue.bucket import Allowance
from mta.queue.shaping import LOOKED_AT, OURS, Pattern, Rule, Shaping, line_of, load, parse


@pytest.fixture(scope="module")
def ours() -> Shaping:
    return load(OURS)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "s.yaml")
    return caught.value.problems


def test_nothing_is_no_rules() -> None:
    assert parse("", "s.yaml") == Shaping()


def test_every_mistake_is_told_at_once_where_it_stands() -> None:
    assert problems(
        """providers:
  - name: gmail
    mx: [two words]
    connections: 0
    messages: many
    rules:
      - {match: "", action: slow}
      - {match: [good, "a*b"], action: explode}
      - {match: xx, action: hold, factor: 0.5}
      - {match: xx, action: slow, factor: 1.0, within: 5}
      - {match: xx, action: greylist, after: 2}
      - {action: pause, of: everybody}
  - {name: gmail, mx: []}
limits:
  - {by: [tenant, tenant], messages: 0/1m}
  - {by: [weather], messages: 1000000/1s}
  - {by: [site, tenant, source], messages: 1/1w, colour: red}
rules: {}
"""
    ) == [
        "s.yaml:1:1: providers: gmail is given twice",
        "s.yaml:3:10: providers.0.mx.0: must be a domain name",
        "s.yaml:4:5: providers.0.connections: must be greater than or equal to 1",
        "s.yaml:5:5: providers.0.messages: must be a count in a time such as 100/1m; the units are s, m, h and d",
        "s.yaml:7:10: providers.0.rules.0.match: must be words of two characters or more, with * between them",
        "s.yaml:8:10: providers.0.rules.1.match: must be words of two characters or more, with * between them",
        "s.yaml:8:32: providers.0.rules.1.action: must be 'refusal', 'slow', 'pause', 'hold', 'bounce' or 'greylist'",
        "s.yaml:9:35: providers.0.rules.2.factor: is for slow",
        "s.yaml:10:35: providers.0.rules.3.factor: must be less than 1",
        "s.yaml:10:48: providers.0.rules.3.within: needs after too",
        "s.yaml:11:39: providers.0.rules.4.after: is not for greylist",
        "s.yaml:12:9: providers.0.rules.5.match: is required",
        "s.yaml:12:25: providers.0.rules.5.of: must be 'source', 'site' or 'tenant'",
        "s.yaml:13:19: providers.1.mx: needs at least one",
        "s.yaml:15:6: limits.0.by: names the same twice",
        "s.yaml:15:28: limits.0.messages: must be a count in a time such as 100/1m; the units are s, m, h and d",
        "s.yaml:16:11: limits.1.by.0: must be 'source', 'site', 'provider' or 'tenant'",
        "s.yaml:16:21: limits.1.messages: must be at most 100000 a second",
        "s.yaml:17:6: limits.2.by: has too many",
        "s.yaml:17:34: limits.2.messages: must be a count in a time such as 100/1m; the units are s, m, h and d",
        "s.yaml:17:50: limits.2.colour: no such setting",
        "s.yaml:18:1: rules: must be a list",
    ]


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [("20/1m", 20, 60), ("20/m", 20, 60), ("500/10s", 500, 10), ("1/2h", 1, 7200), ("1000/d", 1000, 86400)],
)
def test_allowances_are_counts_in_a_time(text: str, count: float, seconds: float) -> None:
    shaping = parse(f"limits: [{{by: [tenant], messages: {text}}}]", "s.yaml")
    assert shaping.limits[0].messages == Allowance(count, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "rules: [[[[",
        "rules: !!python/object/apply:os.system [true]",
        "rules: [{match: [[x]], action: hold}]",
        "rules: [{match: {a: b}, action: hold}]",
        "rules: [{match: 5, action: hold}]",
        "rules: [{match: xx, action: hold, lasts: .inf}]",
        "rules: [{match: xx, action: pause, lasts: .nan}]",
        'rules: [{match: "a\\0b", action: hold}]',
        f"rules: [{{match: {'x' * 201}, action: hold}}]",
        f"rules: [{{match: '{'xx*' * 8}xx', action: hold}}]",
        "&a [*a]",
        "providers: 7",
        "limits: [{by: tenant, messages: 1/1s}]",
    ],
)
def test_hostile_files_are_refused_in_words(text: str) -> None:
    assert all(each.startswith("s.yaml:") for each in problems(text))


def test_aliases_of_aliases_cost_little() -> None:
    text = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
    text += "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 12))
    began = time.process_time()
    assert "too large" in problems(text)[0]
    assert time.process_time() - began < 5


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("pattern", "line", "matches"),
    [
        ("Too Many*connections", "421 4.7.0 too many SMTP CONNECTIONS", True),
        ("Too Many*connections", "421 connections: too many", False),
        ("^421", "421 4.7.0 no", True),
        ("^421", "550 not 421", False),
        ("^421*enough", "421 that is enough", True),
        ("^421*enough", "450 421 enough", False),
        ("aba*aba", "ababa", False),
        ("4.7.28", "421 4x7x28", False),
    ],
)
def test_patterns_are_words_in_order(pattern: str, line: str, matches: bool) -> None:
    assert Pattern.of(pattern).matches(line_of(Reply(0, "", line))[2:]) is matches


@given(st.text(max_size=60), st.text(max_size=60), st.text("ab ", min_size=2, max_size=8), st.text("ab ", min_size=2))
def test_words_are_found_whatever_is_around_them(before: str, between: str, one: str, other: str) -> None:
    if one.strip() != one or other.strip() != other or len(one.strip()) < 2 or len(other.strip()) < 2:
        return
    assert Pattern.of(f"{one}*{other}").matches(f"{before}{one}{between}{other}".lower())


def test_no_pattern_costs_more_than_a_look_at_512_characters() -> None:
    worst = [Pattern.of("*".join([*["aa" * 10] * 7, "zz"])) for _ in range(50)]
    reply = Reply(421, "4.7.0", "a" * 1_000_000)
    assert len(line_of(reply)) == LOOKED_AT
    began = time.process_time()
    for _ in range(100):
        assert not any(each.matches(line_of(reply)) for each in worst)
    assert time.process_time() - began < 1.0


def own_replies() -> list[Reply]:
    """Every text that Fairlead makes itself."""
    found = [trouble.of_trouble(Trouble(Stage.CONNECT, fault)).reply for fault in Fault]
    found += [
        trouble.of_trouble(Trouble(stage, fault, f"mx.example[192.0.2.1]:25: {fault} ({stage})")).reply
        for fault in Fault
        for stage in Stage
    ]
    found += [trouble.of_no_way(why, "example.com", rechecked=again).reply for why in NoWay for again in (True, False)]
    found += [transitions.EXPIRED_REPLY, transitions.DELAYED_REPLY]
    return found + [each for each in vars(replies).values() if isinstance(each, Reply)]


def rules_of(shaping: Shaping) -> list[Rule]:
    return [*shaping.rules, *(rule for provider in shaping.providers for rule in provider.rules)]


def test_no_rule_of_ours_matches_what_fairlead_says_itself(ours: Shaping) -> None:
    texts = own_replies()
    assert len(texts) > 100
    for reply in texts:
        assert [rule.match for rule in rules_of(ours) if rule.matches(line_of(reply))] == [], str(reply)


@pytest.mark.parametrize(
    ("hosts", "provider"),
    [
        (("gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com"), "gmail"),
        (("ASPMX.L.GOOGLE.COM.", "aspmx2.googlemail.com"), "gmail"),
        (("hotmail-com.olc.protection.outlook.com",), "outlook"),
        (("contoso-com.mail.protection.outlook.com",), "microsoft-365"),
        (("mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"), "yahoo"),
        (("mx-aol.mail.gm0.yahoodns.net",), "yahoo"),
        (("mx01.mail.icloud.com",), "icloud"),
        (("mx00.emig.gmx.net", "mx01.emig.gmx.net"), "united-internet"),
        (("mx-ha02.web.de",), "united-internet"),
        (("mxs.mail.ru",), "mail.ru"),
        (("mx3.qq.com",), "qq"),
        (("mx1h1.comcast.net",), "comcast"),
        (("163mx01.mxmail.netease.com",), "netease"),
        (("aspmx.l.google.com", "mx.example.com"), None),  # one host is somebody else's
        (("notgoogle.com",), None),
        ((), None),
    ],
)
def test_providers_are_known_by_all_their_mx_hosts(ours: Shaping, hosts: tuple[str, ...], provider: str | None) -> None:
    found = ours.provider(hosts)
    assert (found and found.name) == provider


# Replies as the providers document them, or as their senders report them.
DOCUMENTED = [
    (
        "gmail",
        "421",
        (
            "4.7.28 [192.0.2.1] Our system has detected an unusual rate of\n4.7.28 unsolicited mail originating from "
            "your IP address. To protect our\n4.7.28 users from spam, mail sent from your IP address has been\n4.7.28 "
            "temporarily rate limited. Please visit\n4.7.28 https://support.google.com/mail/?p=UnsolicitedRateLimitError"
        ),
        "slow",
    ),
    (
        "gmail",
        "421",
        (
            "4.7.0 [192.0.2.1      15] Our system has detected that this message is suspicious due to the very low\n"
            "4.7.0 reputation of the sending domain. - gsmtp"
        ),
        "pause",
    ),
    ("gmail", "421", "4.3.0 Temporary System Problem. Try again later", "refusal"),
    (
        "outlook",
        "451",
        (
            "4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For e-mail "
            "delivery information, see https://aka.ms/postmaster (S775)"
        ),
        "slow",
    ),
    (
        "outlook",
        "550",
        (
            "5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service "
            "provider since part of their network is on our block list (S3150)."
        ),
        "pause",
    ),
    ("microsoft-365", "550", "5.7.606 Access denied, banned sending IP [192.0.2.1].", "pause"),
    ("microsoft-365", "451", "4.7.500 Server busy. Please try again later from [192.0.2.1].", "refusal"),
    (
        "yahoo",
        "421",
        (
            "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - "
            "4.16.55.1; see https://postmaster.yahooinc.com/error-codes"
        ),
        "slow",
    ),
    (
        "yahoo",
        "421",
        "4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT succeed.",
        "pause",
    ),
    ("yahoo", "421", "4.7.0 [GL01] Message from (192.0.2.1) temporarily deferred", "greylist"),
    (
        "icloud",
        "421",
        (
            "4.7.1 Messages to a@icloud.com deferred due to excessive volume. Try again later - "
            "https://support.apple.com/en-us/HT204137"
        ),
        "refusal",
    ),
    ("icloud", "550", "5.7.1 [CS01] Message rejected due to local policy.", "pause"),
    (
        "united-internet",
        "554",
        (
            "gmx.net (mxgmx104) Nemesis ESMTP Service not available\nNo SMTP service\nIP address is block listed.\n"
            "For explanation visit https://postmaster.gmx.net/en/case?c=r0201"
        ),
        "pause",
    ),
    ("united-internet", "421", "Rate limit reached. Please try again later", "slow"),
    ("qq", "550", "Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?id=20022", "pause"),
    ("qq", "550", "Domain frequency limited", "pause"),
    ("comcast", "421", "[Too many sessions opened]", "refusal"),
    ("comcast", "421", "4.1.0 192.0.2.1 Throttled - try again later", "slow"),
    ("netease", "421", "HL:ICC 192.0.2.1", "pause"),
    ("orange", "421", "Too many connections, slow down. OFR004_104 [104]", "refusal"),
    (None, "450", "4.2.0 <a@example.com>: Recipient address rejected: Greylisted", "greylist"),
    (None, "451", "4.7.1 Greylisting in action, please come back in 00:05:00", "greylist"),
    (None, "450", "4.7.1 Error: rate limit exceeded", "refusal"),
    (
        None,
        "554",
        "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/",
        "pause",
    ),
]


@pytest.mark.parametrize(("name", "code", "text", "action"), DOCUMENTED)
def test_our_rules_match_what_providers_document(
    ours: Shaping, name: str | None, code: str, text: str, action: str
) -> None:
    rules = next((each.rules for each in ours.providers if each.name == name), ours.rules)
    line = line_of(Reply.parse(int(code), text))
    assert [rule.action for rule in rules if rule.matches(line)] == [action]


def test_what_concerns_one_recipient_matches_no_rule_of_ours(ours: Shaping) -> None:
    for reply in (
        Reply(550, "5.1.1", "The email account that you tried to reach does not exist"),
        Reply(452, "4.2.2", "The email account that you tried to reach is over quota"),
        Reply(552, "5.2.2", "mailbox full"),
        Reply(550, "5.7.26", "This mail has been blocked because the sender is unauthenticated"),
        Reply(250, "2.0.0", "OK queued as greylisted-looking-id"[:20]),
    ):
        assert [rule.match for rule in rules_of(ours) if rule.matches(line_of(reply))] == [], str(reply)
