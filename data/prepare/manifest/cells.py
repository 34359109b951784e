"""What the cells of a table hold, as a line of JSON would have it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, get_args, get_origin

import shapely
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.contract.bands import BandKeys
from data.prepare.contract.days import in_utc
from data.suggest import did_you_mean

NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}
Row = tuple[str, dict]  # its place in the file, and its cells by column


@dataclass(frozen=True)
class CellForm:
    """How the cells of a column are read from text."""

    parse: Callable[[str], Any]  # str, int, float, or of WKT
    is_list: bool = False  # items between semicolons
    may_be_object: bool = False  # a cell that begins with a brace is JSON


def form_of(kinds: set) -> CellForm:
    """How the cells of a key are read that has these types among the readers."""
    if BandKeys in kinds:
        kinds = {*kinds, *get_args(BandKeys)}
    origins = {get_origin(kind) for kind in kinds}
    is_list = tuple in origins
    parse: Callable[[str], Any] = str
    if tuple[int, ...] in kinds:
        parse = int
    elif not is_list and kinds & {float, float | None}:
        parse = float
    may_be_object = dict in origins or bool(kinds & {dict, str | dict})
    return CellForm(parse, is_list=is_list, may_be_object=may_be_object)


def cell_of_text(text: str, form: CellForm) -> object:
    """One cell of text; ValueError says what was expected and found."""
    if form.may_be_object and text.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not valid JSON ({error})") from None
    if form.is_list:
        return [_parsed(item.strip(), form.parse) for item in text.split(";")]
    return _parsed(text, form.parse)


def cell_of_value(value: Any) -> Any:
    """A cell that has a type, as JSON would have it; None: the cell is empty.

    Dates and times become ISO text, in UTC, where a time without a zone is. What is null in an
    object is a key that is not given. Whole numbers may be stored as any kind of number.
    """
    if isinstance(value, dict):
        items = {key: cell_of_value(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None}
    if isinstance(value, list):
        return [cell_of_value(item) for item in value]
    if isinstance(value, datetime):
        return in_utc(value).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal | float):
        return _number(value)
    if isinstance(value, bytes):  # as some writers have text
        return value.decode("utf-8", "replace")
    return value


def _number(value: Decimal | float) -> int | float | None:
    """A whole number where nothing is lost; None for NaN, as tables have it in empty cells."""
    if math.isnan(value):
        return None
    if math.isfinite(value) and value == int(value):
        return int(value)
    return float(value)


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    """Text as ``parse`` makes it: int, float, str, or a polygon of WKT."""
    if parse not in NUMBERS:
        return parse(text)
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"expected {NUMBERS[parse]}, found {text[:60]!r}") from None


def polygon(encoded: bytes | str, crs: str | None = None) -> dict:
    """WKB or WKT -> GeoJSON, with the CRS beside the coordinates unless it is lon/lat.

    Raises:
        ValueError: what was expected and found.
    """
    try:
        if isinstance(encoded, bytes):
            encoding = "WKB"
            shape = shapely.from_wkb(encoded)
        else:
            encoding = "WKT"
            shape = shapely.from_wkt(encoded)
        geometry = dict(shapely.geometry.mapping(shape))
    except (GEOSException, TypeError, ValueError, AttributeError):
        raise ValueError(f"expected a polygon in {encoding}, found {str(encoded)[:60]!r}") from None
    if crs is not None:
        geometry["crs"] = crs
    return geometry


def check_header(names: list[str], known: set[str], where: str) -> list[str]:
    """Column names; InputError unless each is known and stands there once."""
    names = [name.strip() for name in names]
    unknown = [name for name in names if name not in known]
    if unknown:
        named = ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
        raise InputError(f"{where}: unknown column {named}; known: {sorted(known)}")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: the column {name!r} stands there twice")
    if "key" not in names:
        raise InputError(f"{where}: expected a column 'key', found {names}")
    return names


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


# The columns of the tile. The others are of the source.
TILE_FORMS = {
    "key": CellForm(str),
    "licence": CellForm(str),
    "attribution": CellForm(str),
    "lon": CellForm(float),
    "lat": CellForm(float),
    "cells": CellForm(int),
    "footprint": CellForm(polygon),
    "split": CellForm(str),
    "scene": CellForm(str, may_be_object=True),
}
