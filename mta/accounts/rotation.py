"""Which keys of a domain sign, and how what the DNS shows brings a new one into use and an old one out of it. Pure.

A key that is to replace others is pending until the DNS has shown it for a while; then it is active, and they retire.
Should it vanish while they are still published, they sign again, and it is pending as before. So what signs is in the
DNS as far as is known, and where nothing is, mail is signed all the same: unsigned is no better.
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from mta.accounts.domains import Domain, Selector, State

SETTLING = 300.0  # seconds for which a replacement has to be shown: secondaries follow their primary
# Seconds that a retired key stays published. Mail that waits with us is signed anew at each attempt; the next hops try
# for five days (RFC 5321 4.5.4.1), and a verifier can take its time (RFC 6376 5.2). It is longer than any TTL, too.
KEPT = 7 * 86400.0


def signing(domain: Domain) -> tuple[Selector, ...]:
    """Choose the keys that sign: those active that the DNS shows, or may show; if it shows none, all of them."""
    active = [each for each in domain.selectors if each.state is State.ACTIVE]
    return tuple([each for each in active if not each.missing_at] or active)


def unpublished(selectors: Sequence[Selector]) -> bool:
    """Tell whether none of the keys that sign is in the DNS."""
    return bool(selectors) and all(each.missing_at for each in selectors)


def hinges(domain: Domain) -> bool:
    """Tell whether what the DNS shows has a say in which keys sign."""
    return sum(each.state is not State.RETIRED for each in domain.selectors) > 1


def changing(domain: Domain) -> bool:
    """Tell whether a key waits for the DNS: to be shown, or not to be any more."""
    return any(each.state is not State.ACTIVE for each in domain.selectors)


def looked(domain: Domain, troubles: Mapping[str, str], now: float) -> Domain:
    """Return what a look at the DNS makes of a domain.

    `troubles` says for a key's `dns_value` what is wrong with what is published for it, "" for nothing; what was not
    answered is not in it, and that key stays as it was.
    """
    keys = {each.name: _seen(each, troubles.get(each.dns_value), now) for each in domain.selectors}
    for name in list(keys):
        each = keys[name]
        generations = _generations(each, keys)
        former = [old for some in generations for old in some]
        if each.state is State.PENDING and each.shown_at and _may_sign(each, former, now):
            keys[name] = replace(each, state=State.ACTIVE)
            # those pending too: they have signed, and another stands in for them
            retired = [old for old in former if old.state is not State.RETIRED]
            keys |= {old.name: replace(old, state=State.RETIRED, removable_at=now + KEPT) for old in retired}
        elif each.state is State.ACTIVE and each.missing_at:
            shown = [[old for old in some if old.state is State.RETIRED and old.shown_at] for some in generations]
            latest = next(filter(None, shown), [])
            if latest:
                keys[name] = replace(each, state=State.PENDING)
                keys |= {old.name: replace(old, state=State.ACTIVE, removable_at=0.0) for old in latest}
    return replace(domain, selectors=tuple([each for each in keys.values() if not _is_over(each, now)]))


def _generations(key: Selector, keys: Mapping[str, Selector]) -> list[list[Selector]]:
    """List the keys that a key replaces, those that these have replaced, and so on."""
    found: list[list[Selector]] = []
    known, names = {key.name}, key.replaces
    while some := [keys[name] for name in names if name in keys and name not in known]:
        found.append(some)
        known.update(names)
        names = tuple([name for each in some for name in each.replaces])
    return found


def _seen(key: Selector, trouble: str | None, now: float) -> Selector:
    if trouble is None:
        return key
    if not trouble:
        return key if key.shown_at else replace(key, shown_at=now, missing_at=0.0, trouble="")
    if key.missing_at and key.trouble == trouble:
        return key
    return replace(key, shown_at=0.0, missing_at=key.missing_at or now, trouble=trouble)


def _may_sign(key: Selector, former: Sequence[Selector], now: float) -> bool:
    """Tell whether a key that is shown has been for long enough, or has nothing to wait for."""
    return now - key.shown_at >= SETTLING or all(each.missing_at for each in former)


def _is_over(key: Selector, now: float) -> bool:
    """Tell whether a retired key can be forgotten: nobody asks for it any more, and its record has gone."""
    return key.state is State.RETIRED and key.removable_at <= now and key.missing_at > 0
