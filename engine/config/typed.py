"""From parsed JSON to typed settings: pydantic checks, and its errors become one line of ours."""

import json
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError, create_model

from data.suggest import suggest
from engine.errors import ConfigError

T = TypeVar("T")
Kinds = type | tuple[type, ...]  # one JSON type, or several that are right

# No conversion from strings, no unknown key, no NaN. Pydantic hands this on to all dataclasses.
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_LONGEST = 60  # characters of a value in a message
_JSON_NAMES = {
    dict: "object",
    list: "list",
    str: "str",
    bool: "bool",
    int: "int",
    float: "float",
    type(None): "null",
}
# Pydantic's types of error, in the words of our messages.
_EXPECTED = {
    "int_type": "int",
    "float_type": "float",
    "finite_number": "a finite number",
    "string_type": "str",
    "bool_type": "bool",
    "dict_type": "object",
    "dataclass_type": "object",
    "tuple_type": "list",
}
_RANGES = {
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "less_than": "a number below {lt:g}",
    "greater_than": "a positive number",  # the only such bound is 0
    "literal_error": "{expected}",
}


def found(value: Any) -> str:
    """How a message names a JSON value: its type and, shortened, the value."""
    name = _JSON_NAMES.get(type(value), type(value).__name__)
    if value is None or isinstance(value, (dict, list)):
        return name
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    return f"{name} {text}"


def has_type(value: Any, kinds: Kinds) -> bool:
    """Whether a JSON value has one of the types ``kinds``.

    Whole numbers pass for ``float``. Booleans never pass for numbers.
    """
    kinds = _as_tuple(kinds)
    return type(value) in kinds or (float in kinds and type(value) is int)


def expected(kinds: Kinds) -> str:
    """How a message names the types that ``has_type`` takes."""
    return " or ".join(_JSON_NAMES[kind] for kind in _as_tuple(kinds))


def _as_tuple(kinds: Kinds) -> tuple[type, ...]:
    if isinstance(kinds, tuple):
        return kinds
    return (kinds,)


def parse(kind: Callable[..., T], value: Any, name: str) -> T:
    """Turn parsed JSON into an object of the dataclass ``kind``.

    Args:
        kind: A dataclass whose fields have JSON types, tuples, dictionaries, or dataclasses again.
        value: What the file says.
        name: How messages call the value, such as "skysense".

    Raises:
        ConfigError: An unknown key, a wrong type or range, a missing value, or an object that
            refuses itself.
    """
    try:
        checked = _checker(kind, name).model_validate_json(json.dumps({name: value}))
    except ValidationError as error:
        # Only the first: the others often follow from it.
        raise ConfigError(_line(kind, error.errors()[0])) from None
    return checked.value


@lru_cache
def _checker(kind: Any, name: str) -> Any:
    """A model around ``kind``: pydantic takes strict rules for a dataclass only from outside."""
    return create_model("Checker", __config__=_STRICT, value=(kind, Field(alias=name)))


def _line(kind: Any, error: Any) -> str:
    """One of pydantic's errors in our words."""
    problem = error["type"]
    path = error["loc"]
    place = _dotted(path)
    context = error.get("ctx", {})
    value = error["input"]
    if problem in _EXPECTED:
        return f"expected {_EXPECTED[problem]}, found {found(value)} at {place}"
    if problem in _RANGES:
        return f"{place}: expected {_RANGES[problem].format(**context)}, found {value!r}"
    if problem == "unexpected_keyword_argument":
        known = typing.get_type_hints(_type_at(kind, path[1:-1]))
        return f'unknown key "{place}"{suggest(path[-1], known)}'
    if problem == "value_error":  # a dataclass refused itself; its message begins with its name
        return _dotted((*path[:-1], context["error"]))
    if problem == "too_long":
        return _wrong_length(kind, path, value)
    if problem == "missing" and isinstance(value, list):
        return _wrong_length(kind, path[:-1], value)
    if problem == "missing":
        above = _dotted(path[:-1])
        return f"expected {place}, found nothing; every {above} needs it"
    return f"{place}: {error['msg']}, found {found(value)}"


def _dotted(path: Iterable[Any]) -> str:
    return ".".join(str(part) for part in path)


def _wrong_length(kind: Any, path: tuple, value: list) -> str:
    """The message for a list that must have a fixed number of entries."""
    entries = len(typing.get_args(_type_at(kind, path[1:])))
    return f"expected {entries} entries, found {len(value)} at {_dotted(path)}"


def _type_at(kind: Any, path: Iterable[Any]) -> Any:
    """The type of what stands at a path below ``kind``."""
    for name in path:
        if is_dataclass(kind):
            kind = typing.get_type_hints(kind)[name]
        else:  # an entry of a dictionary
            kind = typing.get_args(kind)[-1]
        if typing.get_origin(kind) in (typing.Union, types.UnionType):  # X | None
            kind = typing.get_args(kind)[0]
    return kind
