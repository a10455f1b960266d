"""Reading plain JSON objects with a path for everything: all problems are noted, none stops the reading.

A reader returns None for what has the wrong type (the problem is noted) and the empty value for what is
absent. null is not absent. Unknown members are never looked at.
"""

from collections.abc import Iterator

from relay_http.problem import Problem

PROBLEMS_LIMIT = 1000  # what a request can be told at once
_PATH_LIMIT = 256
_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


class Problems:
    """What was found wrong so far."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: str, message: str) -> None:
        """Note a problem; `path` "" is the request itself."""
        if len(self.found) < PROBLEMS_LIMIT:
            self.found.append(Problem(message, path[:_PATH_LIMIT] or None))

    def wrong_type(self, path: str, expected: type, value: object) -> None:
        """Note that a value is of another JSON type."""
        given = _TYPES.get(type(value), "null")
        self.add(path, f"Invalid type. Expected: {_TYPES[expected]}, given: {given}.")


class Fields:
    """An object of the request, under its path."""

    def __init__(self, members: dict[str, object], path: str, problems: Problems) -> None:
        self._members = members
        self.path = path
        self.problems = problems

    @classmethod
    def of(cls, value: object, path: str, problems: Problems) -> "Fields | None":
        """Read an object."""
        if isinstance(value, dict):
            return cls(value, path, problems)
        problems.wrong_type(path, dict, value)
        return None

    def at(self, name: str) -> str:
        """The path of a member."""
        return f"{self.path}.{name}" if self.path else name

    def problem(self, name: str, message: str) -> None:
        """Note a problem with a member."""
        self.problems.add(self.at(name), message)

    def has(self, name: str) -> bool:
        """Whether the member is there, with whatever value."""
        return name in self._members

    def text(self, name: str) -> str | None:
        """Read a string."""
        value = self._members.get(name, "")
        if isinstance(value, str):
            return value
        self.problems.wrong_type(self.at(name), str, value)
        return None

    def integer(self, name: str) -> int | None:
        """Read an integer; None too when it is absent."""
        value = self._members.get(name, 0)
        if type(value) is int:
            return value if self.has(name) else None
        self.problems.wrong_type(self.at(name), int, value)
        return None

    def flag(self, name: str) -> bool | None:
        """Read a boolean."""
        value = self._members.get(name, False)
        if isinstance(value, bool):
            return value
        self.problems.wrong_type(self.at(name), bool, value)
        return None

    def object(self, name: str) -> "Fields | None":
        """Read an object; None too when it is absent."""
        return Fields.of(self._members[name], self.at(name), self.problems) if self.has(name) else None

    def array(self, name: str) -> "list[object] | None":
        """Read an array."""
        value = self._members.get(name, [])
        if isinstance(value, list):
            return value
        self.problems.wrong_type(self.at(name), list, value)
        return None

    def objects(self, name: str) -> "Iterator[Fields]":
        """Read the objects of an array; those that are none are noted and left out."""
        for number, value in enumerate(self.array(name) or ()):
            fields = Fields.of(value, f"{self.at(name)}.{number}", self.problems)
            if fields is not None:
                yield fields

    def texts(self, name: str) -> list[tuple[str, str]]:
        """Read the strings of an array, each with its path."""
        return self._strings((f"{self.at(name)}.{number}", value) for number, value in enumerate(self.array(name) or ()))

    def text_map(self, name: str) -> dict[str, str]:
        """Read an object whose values are strings."""
        fields = self.object(name)
        if fields is None:
            return {}
        members = fields._members  # noqa: SLF001 an object of the same class
        self._strings((fields.at(key), value) for key, value in members.items())
        return {key: value for key, value in members.items() if isinstance(value, str)}

    def _strings(self, values: Iterator[tuple[str, object]]) -> list[tuple[str, str]]:
        found = []
        for path, value in values:
            if isinstance(value, str):
                found.append((path, value))
            else:
                self.problems.wrong_type(path, str, value)
        return found
