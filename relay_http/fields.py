"""Reading plain JSON objects with a path for everything: all problems are noted, none stops the reading.

A reader returns None for what it noted a problem with, and the empty value for what is absent. null is
not absent. Unknown members are never looked at.
"""

from relay_http.problem import Problem

PROBLEMS_LIMIT = 1000  # what a request can be told at once
_PATH_LIMIT = 256
_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def without_empty(members: dict[str, object]) -> dict[str, object]:
    """Leave out what is null, false or empty, where that means absent."""
    return {name: value for name, value in members.items() if value not in (None, "", [], {}) and value is not False}


def without_null(members: dict[str, object]) -> dict[str, object]:
    """Leave out what is null, where that means absent."""
    return {name: value for name, value in members.items() if value is not None}


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
        self.members = members
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
        return name in self.members

    def text(self, name: str) -> str | None:
        """Read a string."""
        value = self.members.get(name, "")
        if isinstance(value, str):
            return value
        self.problems.wrong_type(self.at(name), str, value)
        return None

    def integer(self, name: str) -> int | None:
        """Read an integer; None too when it is absent."""
        if not self.has(name):
            return None
        value = self.members[name]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self.problems.wrong_type(self.at(name), int, value)
        return None

    def flag(self, name: str) -> bool | None:
        """Read a boolean."""
        value = self.members.get(name, False)
        if isinstance(value, bool):
            return value
        self.problems.wrong_type(self.at(name), bool, value)
        return None

    def inner(self, name: str) -> "Fields | None":
        """Read an object; None too when it is absent."""
        return Fields.of(self.members[name], self.at(name), self.problems) if self.has(name) else None

    def array(self, name: str, limit: int) -> list[object] | None:
        """Read an array of at most `limit` values."""
        value = self.members.get(name, [])
        if not isinstance(value, list):
            self.problems.wrong_type(self.at(name), list, value)
            return None
        if len(value) > limit:
            self.problem(name, f"At most {limit} {name.replace('_', ' ')} are allowed, {len(value)} are given.")
            return None
        return value

    def objects(self, name: str, values: list[object] | None) -> "list[Fields]":
        """Read `values` of the array `name` as objects; those that are none are noted and left out."""
        found = []
        for number, value in enumerate(values or ()):
            fields = Fields.of(value, f"{self.at(name)}.{number}", self.problems)
            if fields is not None:
                found.append(fields)
        return found

    def texts(self, name: str, limit: int) -> dict[str, str]:
        """Read an array of strings as path -> string."""
        values = self.array(name, limit) or ()
        return self._strings({f"{self.at(name)}.{number}": value for number, value in enumerate(values)})

    def text_map(self, name: str, limit: int) -> dict[str, str]:
        """Read an object of at most `limit` strings."""
        fields = self.inner(name)
        if fields is None:
            return {}
        if len(fields.members) > limit:
            self.problem(name, f"At most {limit} {name} are allowed, {len(fields.members)} are given.")
            return {}
        return fields._strings(fields.members, prefix=fields.at(""))  # noqa: SLF001 of the same class

    def _strings(self, values: dict[str, object], prefix: str = "") -> dict[str, str]:
        found = {}
        for name, value in values.items():
            if isinstance(value, str):
                found[name] = value
            else:
                self.problems.wrong_type(prefix + name, str, value)
        return found
