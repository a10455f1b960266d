"""What the delivery role says when it is asked why an entry does not move."""

from mta.control import Question
from mta.delivery.attempt import Attempter
from mta.delivery.dispatcher import Dispatcher
from mta.queue.explanation import Asked, HeldBy, Says
from mta.spool.interface import Spool


def explaining(dispatcher: Dispatcher, attempts: Attempter, spool: Spool) -> Question[Asked]:
    """Make the command that says what holds the lanes of entries, and since when those in flight are being tried."""

    async def answer(asked: Asked) -> Says:
        lanes = dispatcher.lane_states([lane for _, lane in asked.entries])
        begun = attempts.begun_at({entry for entry, _ in asked.entries})
        begun_at = tuple(begun.get(entry, 0.0) for entry, _ in asked.entries)
        if dispatcher.stopping:
            return Says(HeldBy.DRAINING, "delivery is draining: it starts nothing more", lanes, begun_at)
        if not spool.healthy():
            return Says(HeldBy.SICK, "delivery cannot write to the spool: it starts nothing", lanes, begun_at)
        return Says(None, "", lanes, begun_at)

    return Question(Asked, answer)
