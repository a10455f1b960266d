"""Reading requests by their types, with all that is wrong at once and the path of each.

msgspec reads a good request in one call and stops at the first error; only then is it gone through piece by piece.
"""

import re
import types
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, UnsetType

from relay_http.fields import PROBLEMS_LIMIT, Problems
from relay_http.own.kinds import WrongAt, read_kind
from relay_http.problem import Refusal

_Read = TypeVar("_Read", bound=msgspec.Struct)
_WHERE = re.compile(r" - at `\$.*`$", re.DOTALL)


def read(plain: object, type_: type[_Read]) -> _Read:
    """Read a request; Refusal 400 with all that is wrong."""
    try:
        return msgspec.convert(plain, type_, dec_hook=read_kind)
    except msgspec.ValidationError as error:
        problems = Problems()
        _look(plain, type_, "", problems)
        if not problems.found:
            problems.add("", _said(error))
        raise Refusal(400, *problems.found) from None


def _look(plain: object, type_: Any, path: str, problems: Problems) -> None:
    """Note what is wrong with a value: in its parts as far as it has any, else with itself. Not more than is told."""
    if len(problems.found) >= PROBLEMS_LIMIT:
        return
    try:
        msgspec.convert(plain, type_, dec_hook=read_kind)
    except msgspec.ValidationError as error:
        before = len(problems.found)
        bare, longest = _bare(type_)
        if isinstance(plain, dict) and isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            _look_at_members(plain, bare, path, problems)
        elif isinstance(plain, list) and get_origin(bare) is tuple and len(plain) <= longest:
            for number, each in enumerate(plain):
                _look(each, get_args(bare)[0], _below(path, str(number)), problems)
        if len(problems.found) == before:
            cause = error.__cause__
            problems.add(_below(path, cause.path) if isinstance(cause, WrongAt) else path, _said(error))


def _look_at_members(plain: dict[str, object], type_: type[msgspec.Struct], path: str, problems: Problems) -> None:
    hints = get_type_hints(type_, include_extras=True)
    fields = {each.encode_name: each for each in msgspec.structs.fields(type_)}
    for name, value in plain.items():
        if name in fields:
            _look(value, hints[fields[name].name], _below(path, name), problems)
        else:
            problems.add(_below(path, name), "There is no such field.")
    for name, field in fields.items():
        if field.required and name not in plain:
            problems.add(_below(path, name), "It is required.")


def _bare(type_: Any) -> tuple[Any, float]:
    """Take off a type what only limits it; return it, and how many values it may have."""
    longest = float("inf")
    if get_origin(type_) in (Union, types.UnionType):
        type_ = next(each for each in get_args(type_) if each is not UnsetType)
    if get_origin(type_) is Annotated:
        type_, *marks = get_args(type_)
        longest = min(
            [each.max_length for each in marks if isinstance(each, Meta) and each.max_length], default=longest
        )
    return type_, longest


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _said(error: msgspec.ValidationError) -> str:
    return _WHERE.sub("", str(error))[:256]
