"""The records of a manifest, checked key by key, and what is made of them.

pydantic checks the types: strictly, so that no text passes for a number, and without unknown keys.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
)

from data.errors import InputError
from data.prepare.contract.files import File, Remote
from data.prepare.contract.source import Reader
from data.prepare.contract.spot import spot_of
from data.prepare.manifest.entry import Entry
from data.prepare.readers.cube import NetcdfCube, ZarrCube
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from data.prepare.readers.hdf5_series import Hdf5Series
from data.prepare.readers.netcdf_series import NetcdfLabels, NetcdfOptical, NetcdfSar
from data.prepare.readers.raster_labels import GeoTiffLabels
from data.prepare.readers.sentinel2_safe import Sentinel2Safe
from data.prepare.readers.vector_labels import VectorLabels
from data.prepare.readers.web_tiles import WebTiles
from data.suggest import did_you_mean
from data.tiles.check import KEY

READERS: dict[str, type] = {
    "geotiff_image": GeoTiffImage,
    "geotiff_bands": GeoTiffBands,
    "geotiff_labels": GeoTiffLabels,
    "sentinel2_safe": Sentinel2Safe,
    "hdf5_series": Hdf5Series,
    "netcdf_optical": NetcdfOptical,
    "netcdf_sar": NetcdfSar,
    "netcdf_labels": NetcdfLabels,
    "netcdf_cube": NetcdfCube,
    "zarr_cube": ZarrCube,
    "web_tiles": WebTiles,
    "osm": VectorLabels,
    "geojson_labels": VectorLabels,
}
REMOTE = re.compile(r"/vsi|[A-Za-z][A-Za-z0-9+.-]*://")
STRICT = ConfigDict(strict=True, extra="forbid")
# What was expected, by pydantic's name of a fault.
EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "an object",
    "too_short": "at least one item",
}


def _any_file(text: str, info: ValidationInfo) -> File:
    """A path relative to the manifest's folder, which is the context; an address stays as it is."""
    if not text or "\0" in text:
        raise ValueError("the path of a file")
    if REMOTE.match(text):
        return Remote(text)
    folder = cast(Path, info.context)
    return folder / text


def _local_file(text: str, info: ValidationInfo) -> Path:
    """A path relative to the manifest's folder."""
    file = _any_file(text, info)
    if isinstance(file, Remote):
        raise ValueError("a file of this file system (fetch it first)")
    return file


def _text_or_object(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("text or an object")
    return value


# A field of a reader -> what a record holds, and how it becomes the field's value.
AnyFile = Annotated[str, AfterValidator(_any_file)]
LocalFile = Annotated[str, AfterValidator(_local_file)]
NOT_EMPTY = Field(min_length=1)
TYPES: dict[Any, Any] = {
    Path: LocalFile,
    File: AnyFile,
    File | None: AnyFile,
    float | None: float,
    str | dict: Annotated[Any, AfterValidator(_text_or_object)],
    tuple[str, ...]: Annotated[list[str], NOT_EMPTY, AfterValidator(tuple)],
    tuple[int, ...]: Annotated[list[int], NOT_EMPTY, AfterValidator(tuple)],
    tuple[Path, ...]: Annotated[list[LocalFile], NOT_EMPTY, AfterValidator(tuple)],
    dict[str, str]: Annotated[dict[str, str], NOT_EMPTY],
    dict[str, File]: Annotated[dict[str, AnyFile], NOT_EMPTY],
}


class TileKeys(BaseModel):
    """A tile: a line of JSON, or the rows of a table that share a key."""

    model_config = STRICT

    key: str
    sources: list
    licence: str
    attribution: str
    centre: list | None = None
    cells: int | None = None
    footprint: dict | None = None


@cache
def source_model(reader: type) -> type[BaseModel]:
    """The keys of a reader as a model: the fields of its dataclass."""
    keys: dict[str, Any] = {}
    for field in fields(reader):
        kind = TYPES.get(field.type, field.type)
        if field.default is MISSING and field.default_factory is MISSING:
            keys[field.name] = (kind, ...)  # pydantic's sign of a key that is needed
        else:
            keys[field.name] = (kind, None)
    return create_model(reader.__name__, __config__=STRICT, **keys)


def columns() -> dict[str, set]:
    """Every key of every reader, with the types that it has among them.

    These are the columns of a table of sources.
    """
    kinds: dict[str, set] = {"reader": {str}}
    for reader in READERS.values():
        for field in fields(reader):
            kinds.setdefault(field.name, set()).add(field.type)
    return kinds


def entry_of(record: object, where: str, folder: Path) -> Entry:
    """The tile that a record describes.

    Args:
        record: as a line of JSON has it. A source may be a reader already.
        where: the record's place in the manifest, for errors.
        folder: paths are relative to it.

    Raises:
        InputError: anything unknown, missing or of a wrong type.
    """
    tile = _checked(TileKeys, record, where, folder)
    if not KEY.fullmatch(tile.key):
        raise InputError(f"{where}: key {tile.key!r}: expected letters, digits, '_' and '-' only")
    if not tile.sources:
        raise InputError(f"{where}: expected at least one source, found none")
    readers = []
    for number, source in enumerate(tile.sources):
        if not isinstance(source, tuple(READERS.values())):
            source = reader_of(source, f"{where}: sources[{number}]", folder)
        readers.append(source)
    spot = spot_of(tile.model_dump(exclude_unset=True), where)
    return Entry(
        key=tile.key,
        readers=tuple(readers),
        licence=tile.licence,
        attribution=tile.attribution,
        spot=spot,
    )


def reader_of(source: object, where: str, folder: Path) -> Reader:
    """The reader that a source object describes; see ``entry_of``."""
    if not isinstance(source, dict):
        raise InputError(f"{where}: expected an object, found {_shown(source)}")
    name = source.get("reader")
    if not isinstance(name, str) or name not in READERS:
        raise InputError(
            f"{where}: reader {name!r} is unknown{did_you_mean(str(name), READERS)}; "
            f"expected one of {sorted(READERS)}"
        )
    keys = dict(source)
    del keys["reader"]
    model = _checked(source_model(READERS[name]), keys, where, folder)
    return READERS[name](**{key: getattr(model, key) for key in model.model_fields_set})


Model = TypeVar("Model", bound=BaseModel)


def _checked(model: type[Model], record: object, where: str, folder: Path) -> Model:
    """A record as a model; InputError with the first fault."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
    try:
        return model.model_validate(record, context=folder)
    except ValidationError as error:
        raise InputError(f"{where}: {_fault(error, model.model_fields)}") from None


def _fault(error: ValidationError, known: Iterable[str]) -> str:
    """The fault to mend first: an unknown key, then a wrong value, then a missing key."""
    missing = []
    wrong = []
    for fault in error.errors(include_url=False):
        key = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            return f"unknown key {key!r}{did_you_mean(key, known)}; known: {sorted(known)}"
        if fault["type"] == "missing":
            missing.append(key)
        else:
            wrong.append(fault)
    if wrong:
        return _wrong_value(wrong[0])
    return f"missing {sorted(missing)}"


def _wrong_value(fault: Mapping) -> str:
    """One of pydantic's faults in our words."""
    key, *items = fault["loc"]
    place = str(key)
    for item in items:
        place += f"[{item!r}]"
    expected = EXPECTED.get(fault["type"], fault["msg"])
    if fault["type"] == "value_error":  # raised by a validator above
        expected = str(fault["ctx"]["error"])
    return f"{place}: expected {expected}, found {_shown(fault['input'])}"


def _shown(value: object) -> str:
    """The beginning of a value, for errors."""
    return repr(value)[:100]
