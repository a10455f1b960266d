"""The ledger: what clients were told, kept outside of what is being crashed.

Each letter is offered once, under a tag of its own, and never offered again. Its outcome is what its client
can swear to: `acked`, `refused` (an answer that said no for good, or the connection ended before all was
handed over), `unknown` (all was handed over; the answer never came, or was "try again").
"""

from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """What a client knows of its letter."""

    OFFERED = "offered"
    ACKED = "acked"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Ledger:
    """Outcomes by tag, in memory for the checker and in a file for who looks into a failure."""

    def __init__(self, path: Path) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._file = path.open("a", encoding="utf-8")

    def note(self, tag: str, outcome: Outcome, said: str = "") -> None:
        """Write down how far a letter has come, with the words that say so."""
        self.outcomes[tag] = outcome
        self._file.write(f"{outcome} {tag} {said!r}\n")

    def tags(self, outcome: Outcome) -> list[str]:
        """The letters that have come this far."""
        return [tag for tag, each in self.outcomes.items() if each is outcome]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
