"""A history of many messages: what an installation with five tenants, one of them large, tells in a month."""

import random
from collections.abc import Iterator

from mta.events.segments import LoggedEvent
from mta.mail.event import Event, EventType, event_id
from mta.mail.ids import new_message_id
from mta.mail.summary import Summary

BEGAN = 1_800_000_000.0
LARGE, SMALL = "large", "small"
POPULAR = "alerts@popular.test"  # has a hundredth of all mail
_TENANTS = (LARGE,) * 96 + ("second", "third", "fourth", SMALL)
_SYLLABLES = ("in", "voi", "ce", "or", "der", "ship", "ment", "re", "set", "pass", "word", "con", "firm", "ta", "ly")


class History:
    """Events in the order of the log: each message is accepted, and delivered or bounced some messages later."""

    def __init__(self, messages: int, seed: int) -> None:
        self.messages = messages
        self._chance = random.Random(seed)
        self.words = sorted({"".join(self._chance.choices(_SYLLABLES, k=3)) for _ in range(3000)})
        self.marked: dict[str, Event] = {}

    def events(self) -> Iterator[LoggedEvent]:
        seq = 0
        under_way: list[Event] = []
        for number in range(self.messages):
            seq += 1
            accepted = self._accepted(number)
            yield LoggedEvent(seq, seq, accepted)
            if number == self.messages // 3:
                self.marked["a third"] = accepted
            if number % 500 != 499:  # one of 500 stays in the queue
                under_way.append(accepted)
            if len(under_way) > 100:
                seq += 1
                yield LoggedEvent(seq, seq, self._ended(under_way.pop(0), BEGAN + number))

    def _accepted(self, number: int) -> Event:
        chance, message = self._chance, new_message_id()
        tenant = _TENANTS[number % 100]
        recipient = POPULAR if number % 100 == 50 else f"user{number}@example{number % 1000}.test"
        words = [*chance.sample(self.words, 5), "update"]
        if number % 20_000 == 7:
            words.append("rareword")
        return Event(
            id=event_id(message, 0, 1),
            type=EventType.ACCEPTED,
            at=BEGAN + number,
            tenant=tenant,
            message=message,
            sender=f"news{number % 40}@mail{number % 7}.{tenant}.test",
            recipients=(recipient,),
            size=20_000,
            origin="http",
            client="192.0.2.7",
            message_class="normal",
            signed=f"{tenant}.test",
            request=message,
            categories=("welcome",) if number % 3 else ("bill", f"batch{number // 1000}"),
            message_id=f"<{message}@relay.test>",
            summary=Summary(
                subject=" ".join(words), from_=f"News <news@{tenant}.test>", to=recipient, dialect="sendgrid"
            ),
        )

    def _ended(self, accepted: Event, at: float) -> Event:
        bounced = self._chance.random() < 0.002
        return Event(
            id=event_id(accepted.message, 1, 1),
            type=EventType.BOUNCED if bounced else EventType.DELIVERED,
            at=at,
            tenant=accepted.tenant,
            message=accepted.message,
            entry=f"{accepted.message}.1",
            recipient=accepted.recipients[0],
            sender=accepted.sender,
            attempt=1,
            relay="mx1.example.test[192.0.2.25]:25",
            source="198.51.100.3",
            tls="TLSv1.3:TLS_AES_256_GCM_SHA384:unverified",
            signed=f"{accepted.tenant}.test:s1",
            reply="550 5.1.1 No such user" if bounced else "250 2.0.0 Ok: queued as 4F2AB1",
            status="5.1.1" if bounced else "2.0.0",
            reason="recipient",
            delay=1.375,
            request=accepted.request,
            categories=accepted.categories,
        )
