"""How recipients stand, as the views keep it: two numbers for each, its status and the event that told it. Pure."""

from collections.abc import Sequence

import msgspec

from mta.mail.event import EventType
from mta.queue.views import Status

STATUSES = tuple(Status)
"""A status is stored as its place here: the least of the recipients' is the message's."""

CODES = {status: code for code, status in enumerate(STATUSES)}
SCHEDULED, QUEUED, DEFERRED = (CODES[each] for each in (Status.SCHEDULED, Status.QUEUED, Status.DEFERRED))
TYPES = tuple(EventType)
TYPE_CODES = {kind: code for code, kind in enumerate(TYPES)}

_TOLD = {
    EventType.DEFERRED: DEFERRED,
    EventType.BOUNCED: CODES[Status.BOUNCED],
    EventType.EXPIRED: CODES[Status.EXPIRED],
    EventType.DROPPED: CODES[Status.DROPPED],
    EventType.CANCELLED: CODES[Status.CANCELLED],
    EventType.DELIVERED: CODES[Status.DELIVERED],
}
_ATTEMPTS = frozenset({EventType.DEFERRED, EventType.BOUNCED, EventType.DELIVERED, EventType.EXPIRED})
_encode = msgspec.msgpack.Encoder().encode
decode_standing = msgspec.msgpack.Decoder(list[int]).decode
"""Read what `Standing.stored` wrote: status and event's number of the first recipient, of the second …"""


class Standing:
    """One message while its events are being taken in."""

    def __init__(self, message_id: str, seq: int, scope: int, recipients: Sequence[str], *, scheduled: bool) -> None:
        """Begin with nobody tried yet; `told` is what was stored, for one that others have told of."""
        self.id = message_id
        self.seq = seq
        self.scope = scope
        self.scheduled = scheduled
        self.last_at = 0.0
        self.release_at = 0.0  # 0 for one that was not scheduled
        self.told = [QUEUED, 0] * len(recipients)
        self._recipients = recipients
        self._places: dict[str, list[int]] | None = None

    @property
    def weight(self) -> int:
        """How much it is to remember."""
        return 1 + len(self._recipients)

    @property
    def status(self) -> int:
        """The message's status."""
        least = min(self.told[::2], default=QUEUED)
        return SCHEDULED if self.scheduled and least == QUEUED else least

    @property
    def ended(self) -> bool:
        """Whether nobody waits any more."""
        return self.status > DEFERRED

    @property
    def stored(self) -> bytes:
        """What is stored."""
        return _encode(self.told)

    def tell(self, kind: EventType, recipient: str, seq: int) -> None:
        """Take in an event."""
        code = _TOLD.get(kind)
        place = None if code is None else self._place(recipient)
        if code is not None and place is not None:
            self.told[2 * place : 2 * place + 2] = code, seq
            self.scheduled = self.scheduled and kind not in _ATTEMPTS

    def _place(self, recipient: str) -> int | None:
        """Find a recipient: of one that stands there twice, the first who waits."""
        if self._places is None:
            self._places = {}
            for number, each in enumerate(self._recipients):
                self._places.setdefault(each, []).append(number)
        places = self._places.get(recipient)
        if places is None:
            return None
        return next((each for each in places if self.told[2 * each] <= DEFERRED), places[-1])
