"""From parsed JSON to typed, checked settings objects. It knows dataclasses, not what they mean."""

import types
import typing
from dataclasses import MISSING, fields, is_dataclass

from data.suggest import suggest
from engine.errors import ConfigError

_MISSING = object()
_JSON_NAMES = {
    dict: "object",
    list: "list",
    str: "str",
    bool: "bool",
    int: "int",
    float: "float",
    type(None): "null",
}


def found(value) -> str:
    """How a message names a JSON value: its type and, shortened, itself."""
    name = _JSON_NAMES.get(type(value), type(value).__name__)
    if value is None or isinstance(value, (dict, list)):
        return name
    text = (
        f'"{value}"'
        if isinstance(value, str)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return f"{name} {text if len(text) <= 60 else text[:57] + '...'}"


def has_type(value, kinds) -> bool:
    """Whether a JSON value is of one of ``kinds``; whole numbers pass for ``float``, booleans never
    for numbers."""
    for kind in kinds if isinstance(kinds, tuple) else (kinds,):
        if type(value) is kind or (kind is float and type(value) is int):
            return True
    return False


def expected(kinds) -> str:
    """How a message names the types that ``has_type`` would take."""
    return " or ".join(
        _JSON_NAMES[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,))
    )


def parse(kind, value, path: str, default=_MISSING):
    """``value`` (parsed JSON) as an object of type ``kind``.

    Args: kind: a dataclass, ``dict[str, X]``, ``tuple[...]``, ``X | None`` or a plain type. value:
        what the file says. path: dotted place of the value, for messages. default: what the
        enclosing object has here; an object takes from it what ``value`` leaves out, and so does
            each entry of a dictionary, but not the dictionary: it has the entries of ``value``.

    Raises: ConfigError: unknown key, wrong type, missing value, or an object that finds itself
        impossible.
    """
    if is_dataclass(kind):
        return _dataclass(kind, value, path, default)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else parse(options[0], value, path, default)
    if origin is dict:
        return _dictionary(typing.get_args(kind)[1], value, path, default)
    if origin is tuple:
        return _tuple(typing.get_args(kind), value, path)
    _require(value, kind, path)
    return float(value) if kind is float else value


def _require(value, kinds, path: str) -> None:
    """Raises ConfigError if a value is of another type."""
    if not has_type(value, kinds):
        raise ConfigError(f"expected {expected(kinds)}, found {found(value)} at {path}")


def _dataclass(kind, value, path: str, default):
    """One settings object: given fields over the enclosing default's, or over the class's own."""
    _require(value, dict, path)
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise ConfigError(f'unknown key "{path}.{key}"{suggest(key, hints)}')
    chosen = {}
    for field in fields(kind):
        here = getattr(default, field.name) if isinstance(default, kind) else _field_default(field)
        if field.name in value:
            chosen[field.name] = parse(
                hints[field.name], value[field.name], f"{path}.{field.name}", here
            )
        elif here is _MISSING:
            raise ConfigError(f"expected {path}.{field.name}, found nothing; every {path} needs it")
        else:
            chosen[field.name] = here
    above = path.rpartition(".")[0]
    try:
        made = kind(**chosen)  # may refuse itself
    except ValueError as error:
        raise ConfigError(f"{above}.{error}") from error
    problem = made.problem() if hasattr(made, "problem") else None
    if problem:
        raise ConfigError(f"{above}.{problem}")
    return made


def _field_default(field):
    """A dataclass field's own default."""
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else _MISSING


def _dictionary(kind, value, path: str, default) -> dict:
    """Named entries; one that is ``null`` has been taken away."""
    _require(value, dict, path)
    defaults = default if isinstance(default, dict) else {}
    return {
        key: parse(kind, entry, f"{path}.{key}", defaults.get(key, _MISSING))
        for key, entry in value.items()
        if entry is not None
    }


def _tuple(kinds, value, path: str) -> tuple:
    """A list of one kind of any length, or of fixed length."""
    _require(value, list, path)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ConfigError(f"expected {len(kinds)} entries, found {len(value)} at {path}")
    return tuple(
        parse(kind, entry, f"{path}.{index}")
        for index, (kind, entry) in enumerate(zip(kinds, value))
    )
