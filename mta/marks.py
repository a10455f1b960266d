"""YAML read with the line and column of every key, so that a problem can be reported where it stands.

Plain YAML data only: no tags that make objects. A key without a value counts as not given.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml


class Position(NamedTuple):
    """A place in a text, counted from 1."""

    line: int
    column: int

    @classmethod
    def of(cls, mark: yaml.Mark | None) -> "Position":
        """Read the parser's mark, which counts from 0."""
        return cls(mark.line + 1, mark.column + 1) if mark else cls(1, 1)


class Problem(NamedTuple):
    """What is wrong, and where."""

    at: Position
    what: str


type_path = tuple[str | int, ...]
_LARGEST = 100_000  # values in one text: aliases of aliases grow without end


class MarkedYaml:
    """The data of a YAML text as `values`, and where each key path of it stands.

    `problems` are those of the text itself; with any, `values` has only what could be read.
    """

    def __init__(self, text: str) -> None:
        self.values: Any = {}
        self.problems: list[Problem] = []
        self._positions: dict[type_path, Position] = {}
        self._values_left = _LARGEST
        self._scalars = yaml.SafeLoader("")
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is not None:
                self.values = self._read(node, ())
        except yaml.MarkedYAMLError as error:
            at = Position.of(error.problem_mark or error.context_mark)
            self.problems.append(Problem(at, str(error.problem or error.context)))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.problems.append(Problem(Position(1, 1), f"not YAML: {str(error).splitlines()[0]}"))

    def problem(self, path: Iterable[str | int], what: str) -> Problem:
        """Say what is wrong with a key, where it stands or else where the nearest key around it stands."""
        known = full = tuple(path)
        while known and known not in self._positions:
            known = known[:-1]
        key = ".".join(map(str, full))
        return Problem(self._positions.get(known, Position(1, 1)), f"{key}: {what}" if key else what)

    def _read(self, node: yaml.Node, path: type_path) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            raise ValueError("too large")
        self._positions.setdefault(path, Position.of(node.start_mark))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*path, number)) for number, item in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # whatever PyYAML meets in a value that is not of its tag
            kind = node.tag.rpartition(":")[2]
            self.problems.append(Problem(Position.of(node.start_mark), f"{str(node.value)[:40]!r} is no {kind}"))
            return None

    def _mapping(self, node: yaml.MappingNode, path: type_path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            if here in self._positions:
                self.problems.append(
                    Problem(Position.of(key_node.start_mark), f"{'.'.join(map(str, here))}: given twice")
                )
                continue
            self._positions[here] = Position.of(key_node.start_mark)
            value = self._read(value_node, here)
            if value is not None:
                found[key] = value
        return found
