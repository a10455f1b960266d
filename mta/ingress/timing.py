"""When a message is to go out and to be there, from what MAIL asks for: FUTURERELEASE (RFC 4865), DELIVERBY (RFC 2852).

Pure: a MAIL command and the time in; absolute seconds, or the reply that refuses it, out.
"""

from datetime import UTC, datetime

import msgspec

from mta.ingress.parameters import MailFrom
from mta.mail.reply import Reply

SHORTEST = 5  # seconds: a deadline is kept to within these, so that less cannot be promised (min-by-time of RFC 2852 2)


class Timing(msgspec.Struct, frozen=True):
    """Absolute seconds, 0 for what was not asked for."""

    release_at: float = 0
    deliver_by: float = 0


NO_TIMING = Timing()


def longest_hold(now: float, longest: float) -> str:
    """Say for how long and until when mail can be held, as EHLO does (RFC 4865 3)."""
    return f"{int(longest)} {datetime.fromtimestamp(int(now + longest), UTC):%Y-%m-%dT%H:%M:%SZ}"


def timing_of(mail: MailFrom, now: float, longest: float) -> Timing | Reply:
    """Work out the times of a MAIL command that came at `now`; `longest` is how many seconds mail may be held."""
    if not mail.hold and not mail.by_mode:
        return NO_TIMING
    release_at = _release_at(mail.hold, now) if mail.hold else 0.0
    if mail.hold and not now < release_at <= now + longest:  # RFC 4865 4.2
        return Reply(501, "5.5.4", f"Mail can be held until a later time, for {int(longest)} seconds at most")
    if not mail.by_mode:
        return Timing(release_at)
    if mail.by_mode.startswith("R") and mail.by_seconds < SHORTEST:
        if mail.by_seconds <= 0:
            return Reply(501, "5.5.4", "BY with R needs a time to come")  # RFC 2852 4
        return Reply(555, "5.5.4", f"BY with R needs {SHORTEST} seconds or more")  # RFC 2852 3
    deliver_by = now + mail.by_seconds
    if release_at >= deliver_by:
        return Reply(501, "5.5.4", "Mail cannot be held until BY is over")  # RFC 4865 5.2.2
    return Timing(release_at, deliver_by)


def _release_at(hold: str, now: float) -> float:
    """Read `for;SECONDS` or `until;DATE-TIME`; 0 for a date that there is not."""
    kind, _, value = hold.partition(";")
    if kind == "for":
        return now + int(value)
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        return 0.0
