"""Substitutions and sections: keys in texts, replaced literally. `{{name}}` is a key like any other.

One pass: what stands in place of a key is not looked through for keys of substitutions. A value that is the key of a
section stands for that section, whose text may have keys again, four sections deep. Where keys overlap, the longer is
meant. Pure; the work and what comes of it are bounded for a request (Refusal 413), whoever writes the keys.
"""

from collections.abc import Mapping

from relay_http.problem import Problem, Refusal, Why
from relay_http.writing import TEXTS_LIMIT

DEPTH = 4  # sections within sections
_STEPS_LIMIT = 20_000_000  # about two seconds
_CHARS_A_STEP = 256  # that are searched in about the time of one step
_CACHED_CHARS = 64  # shorter texts are split faster than found


class Work:
    """What a request may still cost; and the texts of it that are split already at the keys that were the last."""

    def __init__(self) -> None:
        self._steps = _STEPS_LIMIT
        self._chars = TEXTS_LIMIT
        self._keys = frozenset[str]()
        self._split: dict[str, list[str]] = {}

    def split(self, text: str, keys: frozenset[str]) -> list[str]:
        """Split a text at the keys, which are the odd pieces."""
        if len(text) < _CACHED_CHARS:
            return self._pieces(text, keys)
        if keys is not self._keys:
            if keys != self._keys:  # of each of a thousand sets to keep all would be half a gigabyte
                self._split.clear()
            self._keys = keys
        found = self._split.get(text)
        if found is None:
            found = self._split[text] = self._pieces(text, keys)
        return found

    def _pieces(self, text: str, keys: frozenset[str]) -> list[str]:
        self._take(len(keys) * (1 + len(text) // _CHARS_A_STEP))
        pieces = [text]
        for key in sorted([each for each in keys if each in text], key=len, reverse=True):
            self._take(len(pieces) + text.count(key))
            cut: list[str] = []
            for number, piece in enumerate(pieces):
                if number % 2 or key not in piece:
                    cut.append(piece)
                    continue
                first, *others = piece.split(key)
                cut.append(first)
                for each in others:
                    cut += (key, each)
            pieces = cut
        return pieces

    def join(self, pieces: list[str]) -> str:
        """Join what came of a text."""
        self._take(len(pieces))
        self._chars -= sum(map(len, pieces))
        if self._chars < 0:
            raise _too_large()
        return "".join(pieces)

    def _take(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise _too_large()


class Substitution:
    """What stands in place of the keys in one message."""

    def __init__(self, substitutions: Mapping[str, str], sections: Mapping[str, str], work: Work) -> None:
        self._substitutions = substitutions
        self._sections = sections
        self._keys = frozenset((*substitutions, *sections))
        self._work = work
        self._found: dict[tuple[str, int], str] = {}

    def __call__(self, text: str) -> str:
        """Replace every key in a text; Refusal 413."""
        return self._replaced(text, 0)

    def _replaced(self, text: str, depth: int) -> str:
        pieces = self._work.split(text, self._keys)
        if len(pieces) == 1:
            return text
        keys, put = pieces[1::2], pieces.copy()
        values = {key: self._in_place_of(key, depth) for key in set(keys)}
        put[1::2] = [values[key] for key in keys]
        return self._work.join(put)

    def _in_place_of(self, key: str, depth: int) -> str:
        found = self._found.get((key, depth))
        if found is None:
            value = self._substitutions.get(key, key)
            section = self._sections.get(value)
            found = value if section is None or depth == DEPTH else self._replaced(section, depth + 1)
            self._found[key, depth] = found
        return found


def _too_large() -> Refusal:
    return Refusal(413, Problem("content too large"), why=Why.TOO_LARGE)
