"""A job: one attempt to be made, claimed and on record as such."""

import msgspec

from mta.mail.envelope import Recipient
from mta.spool.records import Claim, Entry, Message


class Job(msgspec.Struct, frozen=True):
    """An entry claimed for one attempt. `recipients` are those the attempt is for, in order."""

    entry: Entry
    message: Message
    claim: Claim

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The recipients still waiting."""
        return tuple(each.recipient for each in self.entry.waiting)
