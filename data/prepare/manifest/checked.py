"""Objects of a manifest checked by pydantic models, and their faults in plain words."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from data.suggest import did_you_mean

# What was expected, by pydantic's name of a fault.
EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "an object",
    "too_short": "at least one item",
}
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Checked(Generic[Model]):
    """A record as a model, or what is wrong with it."""

    model: Model | None
    faults: list[str] = dataclasses.field(default_factory=list)  # each on one line
    wrong: set[str] = dataclasses.field(default_factory=set)  # the keys that they are of


def checked_keys(model: type[Model], record: object, folder: Path) -> Checked[Model]:
    """A record as a model."""
    if not isinstance(record, dict):
        return Checked(None, [f"expected a JSON object, found {type(record).__name__}"])
    try:
        return Checked(model.model_validate(record, context=folder))
    except ValidationError as error:
        faults = error.errors(include_url=False)
    wrong = {str(fault["loc"][0]) for fault in faults}
    return Checked(None, _described(faults, model.model_fields), wrong)


def _described(faults: Sequence[Mapping], known: Iterable[str]) -> list[str]:
    """pydantic's faults in our words: unknown keys, then wrong values, then missing keys."""
    unknown = []
    wrong = []
    missing = []
    for fault in faults:
        key = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            unknown.append(f"unknown key {key!r}{did_you_mean(key, known)}; known: {sorted(known)}")
        elif fault["type"] == "missing":
            missing.append(key)
        else:
            wrong.append(_wrong_value(fault))
    described = unknown + wrong
    if missing:
        described.append(f"missing {sorted(missing)}")
    return described


def _wrong_value(fault: Mapping) -> str:
    """One of pydantic's faults in our words."""
    key, *items = fault["loc"]
    place = str(key)
    for item in items:
        place += f"[{item!r}]"
    expected = EXPECTED.get(fault["type"], fault["msg"])
    if fault["type"] == "value_error":  # raised by a validator above
        expected = str(fault["ctx"]["error"])
    return f"{place}: expected {expected}, found {shown(fault['input'])}"


def shown(value: object) -> str:
    """The beginning of a value, for errors."""
    return repr(value)[:100]
