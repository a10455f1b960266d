"""Shaping rules: what large mailbox providers allow, and what to do when a reply says that it was too much.

`config/shaping.yaml` has ours and documents the keys. This module reads such a file, every error at once (mta.config),
and answers two questions: which provider runs a site, and which rules does a reply match. What they do is in limits.py.

Patterns are words in order, not regular expressions: `too many*connections` matches wherever both stand in that order,
whatever is between them; `^421` only where the reply begins so. Case does not matter. Matching takes a time linear in
the reply, of which at most 512 characters are looked at, so no pattern and no peer can make it costly. Replies that are
Fairlead's own words (`Result.remote` False) are never matched.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from mta.config import Count, DomainName, Name, Seconds, Section, parse_section, read
from mta.mail.reply import Reply
from mta.queue.bucket import FASTEST, Allowance

OURS = Path(__file__).with_name("shaping.yaml")  # the rules that come with Fairlead
LOOKED_AT = 512  # characters of a reply
_PATTERN_LENGTH = 200
_PATTERN_WORDS = 8
_ALLOWANCE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Pattern(NamedTuple):
    """Words that stand in a reply in this order; `first`: the reply begins with the first of them."""

    words: tuple[str, ...]
    first: bool

    @classmethod
    def of(cls, text: str) -> "Pattern":
        """Read a pattern; ValueError if it is none."""
        words = tuple(text.removeprefix("^").lower().split("*"))
        if len(text) > _PATTERN_LENGTH or len(words) > _PATTERN_WORDS:
            raise ValueError(f"is longer than {_PATTERN_LENGTH} characters or {_PATTERN_WORDS - 1} times *")
        if not text.isprintable() or not all(len(word.strip()) >= 2 for word in words):
            raise ValueError("must be words of two characters or more, with * between them")
        return cls(words, text.startswith("^"))

    def matches(self, line: str) -> bool:
        """Tell whether it is in a line as `line_of` makes it."""
        at = 0
        for number, word in enumerate(self.words):
            found = line.find(word, at)
            if found < 0 or (number == 0 and self.first and found > 0):
                return False
            at = found + len(word)
        return True


def line_of(reply: Reply) -> str:
    """Write a reply as patterns see it: code, enhanced status and text on one line, in lower case."""
    return str(reply)[:LOOKED_AT].lower()


def _patterns(value: object) -> object:
    each = [value] if isinstance(value, str) else value
    if not isinstance(each, list | tuple) or not all(isinstance(text, str | Pattern) for text in each):
        raise ValueError("must be a pattern or a list of patterns")
    return tuple(Pattern.of(text) if isinstance(text, str) else text for text in each)


def _allowance(value: object) -> object:
    if isinstance(value, Allowance):
        return value
    found = _ALLOWANCE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be a count in a time such as 100/1m; the units are s, m, h and d")
    allowance = Allowance(float(found[1]), float(int(found[2] or 1) * _UNITS[found[3]]))
    if allowance.rate > FASTEST:
        raise ValueError(f"must be at most {FASTEST:.0f} a second")
    return allowance


Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_patterns), Field(min_length=1)]
PerTime = Annotated[Allowance, BeforeValidator(_allowance)]
Fact = Literal["source", "site", "provider", "tenant"]


class Rule(Section):
    """What to do when a reply matches, `after` so many times `within` so many seconds.

    - `refusal`: there was too much; the rate is learned from it as from 421.
    - `slow`: the rate falls to `factor` of what it was and climbs back in `lasts` seconds.
    - `pause`: nothing starts for `lasts` seconds, `of` the source at this site, of the whole site, or of the tenant at
      it. A configured source is parked for the site's provider instead, wherever that has sites.
    - `hold`: the message waits until somebody releases it. `bounce`: it fails at once.
    - `greylist`: the site asks to come again, from the same address to the same host; not before `lasts` seconds,
      unless it says a time itself. Nothing else is concluded.
    """

    match: Patterns
    action: Literal["refusal", "slow", "pause", "hold", "bounce", "greylist"]
    of: Literal["source", "site", "tenant"] = "source"
    factor: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.5
    lasts: Seconds = 1800.0
    after: Count = 1
    within: Seconds = 3600.0

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        action = given.get("action")
        meant = {"of": ("pause",), "factor": ("slow",), "lasts": ("slow", "pause", "greylist")}
        for key, actions in meant.items():
            if given.get(key) is not None and isinstance(action, str) and action not in actions:
                yield key, f"is for {' and '.join(actions)}"
        if action in ("greylist", "refusal") and given.get("after") is not None:
            yield "after", f"is not for {action}"
        if given.get("within") is not None and given.get("after") is None:
            yield "within", "needs after too"

    def matches(self, line: str) -> bool:
        """Tell whether a line as `line_of` makes it matches any of the patterns."""
        return any(each.matches(line) for each in self.match)


class Provider(Section):
    """Who runs the MX hosts of many domains. Limits are for each source at each site; what is not given has none."""

    name: Name
    mx: Annotated[tuple[DomainName, ...], Field(min_length=1)]
    connections: Count | None = None
    deliveries_per_connection: Count | None = None
    messages: PerTime | None = None
    new_connections: PerTime | None = None
    rules: tuple[Rule, ...] = ()

    def runs(self, host: str) -> bool:
        """Tell whether an MX host is one of its own."""
        name = host.rstrip(".").lower()
        return any(name == each or name.endswith("." + each) for each in self.mx)


class Shared(Section):
    """A limit on messages for each value, or pair of values, of what it is by."""

    by: Annotated[tuple[Fact, ...], Field(min_length=1, max_length=2)]
    messages: PerTime
    burst: Count = 1

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        by = given.get("by")
        if isinstance(by, list | tuple) and len(by) == 2 and by[0] == by[1]:
            yield "by", "names the same twice"


class Shaping(Section):
    """A file of shaping rules. `rules` are for all sites, after those of a site's provider."""

    providers: tuple[Provider, ...] = ()
    limits: tuple[Shared, ...] = ()
    rules: tuple[Rule, ...] = ()

    @classmethod
    def _between(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        providers = given.get("providers")
        names = [
            each.get("name") if isinstance(each, Mapping) else getattr(each, "name", None)
            for each in (providers if isinstance(providers, list | tuple) else ())
        ]
        for name in sorted({str(each) for each in names if each is not None and names.count(each) > 1}):
            yield "providers", f"{name} is given twice"

    def provider(self, hosts: Sequence[str]) -> Provider | None:
        """Find who runs hosts: the first provider that all of them belong to."""
        if not hosts:
            return None
        return next((each for each in self.providers if all(map(each.runs, hosts))), None)


def parse(text: str, name: str) -> Shaping:
    """Read shaping rules from YAML; ConfigError with all problems. `name` is what problems call the file."""
    return parse_section(Shaping, text, name)


def load(path: Path) -> Shaping:
    """Read a file of shaping rules; ConfigError when it cannot be read or used."""
    return parse(read(path), str(path))
