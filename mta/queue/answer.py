"""What comes of a wish: the words in which operators are answered."""

from enum import StrEnum


class Answer(StrEnum):
    """What came of it, for one entry."""

    DONE = "done"
    UNCHANGED = "unchanged"  # it was so already
    IN_FLIGHT = "in_flight"  # it is being delivered; the wish is kept for when the attempt is over
    ENDED = "ended"  # the log says how
    BUSY = "busy"  # it changed under our hands, time and again
