"""The records of a manifest, checked key by key, and what is made of them.

pydantic checks the types: strictly, so that no text passes for a number, and without unknown keys.
"""

import dataclasses
import re
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
)

from data.errors import InputError
from data.prepare.contract.bands import BandKeys
from data.prepare.contract.days import utc_text
from data.prepare.contract.files import File, Remote
from data.prepare.contract.source import Reader
from data.prepare.manifest.checked import checked_keys, shown
from data.prepare.manifest.entry import Entry, Record, Rule
from data.prepare.manifest.mistakes import Mistakes
from data.prepare.manifest.mosaic import Mosaic
from data.prepare.manifest.scene import Scene, SceneKeys
from data.prepare.place.spot import Spot, spot_of
from data.prepare.readers.cube import NetcdfCube, ZarrCube
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from data.prepare.readers.hdf5_series import Hdf5Series
from data.prepare.readers.netcdf_series import NetcdfLabels, NetcdfOptical, NetcdfSar
from data.prepare.readers.patch import Patch
from data.prepare.readers.patch_labels import PatchLabels
from data.prepare.readers.raster_labels import GeoTiffLabels
from data.prepare.readers.sentinel2_safe import Sentinel2Safe
from data.prepare.readers.vector_labels import VectorLabels
from data.prepare.readers.web_tiles import WebTiles
from data.suggest import did_you_mean
from data.tiles.check import KEY
from data.tiles.splits import SPLITS

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
    "patch": Patch,
    "patch_labels": PatchLabels,
    "osm": VectorLabels,
    "geojson_labels": VectorLabels,
}
PATCHES = ("patch", "patch_labels")  # they know their size on the ground
REMOTE = re.compile(r"/vsi|[A-Za-z][A-Za-z0-9+.-]*://")
DATE = "date"  # the key that may hold a time, of which the day in UTC counts
STRICT = ConfigDict(strict=True, extra="forbid")


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


def _tile_name(text: str) -> str:
    """A key that may name a folder and members of a tar file."""
    if not KEY.fullmatch(text):
        raise ValueError("letters, digits, '_' and '-' only")
    return text


def _text_or_object(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("text or an object")
    return value


def _band_keys(value: object) -> BandKeys:
    """A list of names or numbers, or an object that gives each band of the sensor one."""
    items: list[object] = []
    if isinstance(value, list):
        items = value
    elif isinstance(value, dict):
        items = [*value, *value.values()]
    if not items:
        raise ValueError("a list of bands, or an object {band: the file's name or number}")
    for item in items:
        if not isinstance(item, str | int) or isinstance(item, bool):
            raise ValueError("names or numbers of bands")
    if isinstance(value, dict):
        return value
    return tuple(cast(list, value))


def _split_name(text: str) -> str:
    """What a tile is for."""
    if text not in SPLITS:
        raise ValueError(f"one of {list(SPLITS)}{did_you_mean(text, SPLITS)}")
    return text


# A field of a reader -> what a record holds, and how it becomes the field's value.
AnyFile = Annotated[str, AfterValidator(_any_file)]
LocalFile = Annotated[str, AfterValidator(_local_file)]
TileName = Annotated[str, AfterValidator(_tile_name)]
Split = Annotated[str, AfterValidator(_split_name)]
NOT_EMPTY = Field(min_length=1)
TYPES: dict[Any, Any] = {
    Path: LocalFile,
    File: AnyFile,
    File | None: AnyFile,
    float | None: float,
    str | dict: Annotated[Any, AfterValidator(_text_or_object)],
    BandKeys: Annotated[Any, AfterValidator(_band_keys)],
    tuple[str, ...]: Annotated[list[str], NOT_EMPTY, AfterValidator(tuple)],
    tuple[int, ...]: Annotated[list[int], NOT_EMPTY, AfterValidator(tuple)],
    tuple[Path, ...]: Annotated[list[LocalFile], NOT_EMPTY, AfterValidator(tuple)],
    dict[str, str]: Annotated[dict[str, str], NOT_EMPTY],
    dict[str, File]: Annotated[dict[str, AnyFile], NOT_EMPTY],
}


class TileKeys(BaseModel):
    """A tile: a line of JSON, or the rows of a table that share a key."""

    model_config = STRICT

    key: TileName
    sources: Annotated[list, NOT_EMPTY]
    licence: str
    attribution: str
    centre: list | None = None
    cells: int | None = None
    footprint: dict | None = None
    split: Split | None = None
    scene: dict | None = None


@cache
def source_model(reader: type) -> type[BaseModel]:
    """The keys of a reader as a model: the fields of its dataclass."""
    keys: dict[str, Any] = {}
    for field in fields(reader):
        kind = TYPES.get(field.type, field.type)
        if field.name == DATE:
            kind = Annotated[kind, AfterValidator(utc_text)]
        if _is_needed(field):
            keys[field.name] = (kind, ...)  # pydantic's sign of a key that is needed
        else:
            keys[field.name] = (kind, None)
    return create_model(reader.__name__, __config__=STRICT, **keys)


def _is_needed(field: dataclasses.Field) -> bool:
    """Whether a reader's key has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def columns() -> dict[str, set]:
    """Every key of every reader, with the types that it has among them.

    These are the columns of a table of sources.
    """
    kinds: dict[str, set] = {"reader": {str}}
    for reader in READERS.values():
        for field in fields(reader):
            kinds.setdefault(field.name, set()).add(field.type)
    return kinds


def entry_of(record: Record, folder: Path, mistakes: Mistakes) -> Entry | None:
    """The tile that a record describes.

    Args:
        record: as the manifest has it.
        folder: paths are relative to it.
        mistakes: takes what is unknown, missing, of a wrong type, or can never work.

    Returns:
        The tile; None when the manifest has a mistake, here or before.
    """
    checked = checked_keys(TileKeys, record.keys, folder)
    mistakes.add(record.where, *checked.faults)
    spot = None
    rule = None
    sources = []
    if isinstance(record.keys, dict):
        if not checked.wrong & {"centre", "cells", "footprint"}:
            spot = _spot(record, mistakes)
        if "sources" not in checked.wrong:
            sources = record.keys["sources"]
        if isinstance(record.keys.get("scene"), dict):
            rule = _scene(record, sources, folder, mistakes)
    readers: list[Reader] = []
    for number, source in enumerate(sources):
        if isinstance(source, tuple(READERS.values())):
            readers.append(cast(Reader, source))
            continue
        reader, faults = reader_of(source, folder)
        if record.source_places:
            mistakes.add(record.source_places[number], *faults)
        else:
            mistakes.add(record.where, *[f"sources[{number}]: {fault}" for fault in faults])
        if reader is not None:
            readers.append(reader)
    tile = checked.model
    if tile is None or len(mistakes):
        return None
    return Entry(
        key=tile.key,
        readers=tuple(readers),
        licence=tile.licence,
        attribution=tile.attribution,
        spot=spot,
        folder=folder,
        split=tile.split or "",
        rule=rule,
        whole=record.whole,
    )


def reader_of(source: object, folder: Path) -> tuple[Reader | None, list[str]]:
    """The reader that a source object describes.

    Args:
        source: as a line of JSON has it.
        folder: paths are relative to it.

    Returns:
        The reader, None when it cannot work; and what is wrong with the source, each on one line.
    """
    if not isinstance(source, dict):
        return None, [f"expected an object, found {shown(source)}"]
    name = source.get("reader")
    if not isinstance(name, str) or name not in READERS:
        unknown = (
            f"reader {name!r} is unknown{did_you_mean(str(name), READERS)}; "
            f"expected one of {sorted(READERS)}"
        )
        return None, [unknown]
    keys = dict(source)
    del keys["reader"]
    kind = READERS[name]
    checked = checked_keys(source_model(kind), keys, folder)
    if checked.model is None:
        return None, checked.faults + _faults_beside(checked.wrong, kind, keys, folder=folder)
    reader = _made(kind, checked.model)
    faults = reader.check_keys()
    if faults:
        return None, faults
    return reader, []


def _made(kind: type, model: BaseModel) -> Reader:
    """The reader of the keys that were given."""
    return kind(**{key: getattr(model, key) for key in model.model_fields_set})


def _faults_beside(wrong: set[str], kind: type, keys: dict, *, folder: Path) -> list[str]:
    """What the reader says of its other keys, so that one run names every mistake.

    The keys of a wrong type get a stand-in, and what is said of them is left out.
    """
    sound = {}
    for field in fields(kind):
        if field.name in keys and field.name not in wrong:
            sound[field.name] = keys[field.name]
        elif _is_needed(field):
            sound[field.name] = _stand_in(field.type)
    checked = checked_keys(source_model(kind), sound, folder)
    if checked.model is None:  # a type that has no stand-in
        return []
    faults = _made(kind, checked.model).check_keys()
    mention = re.compile("|".join(rf"\b{re.escape(key)}\b" for key in wrong))
    return [fault for fault in faults if not mention.search(fault)]


def _stand_in(kind: Any) -> object:
    """A value of the type of a key, as a record holds it."""
    origin = get_origin(kind)
    if origin is tuple:
        return ["-"]
    if origin is dict:
        return {"-": "-"}
    return "-"


def _spot(record: Record, mistakes: Mistakes) -> Spot | None:
    """The place that a record names; see ``spot_of``."""
    keys = cast(dict, record.keys)
    sources = keys.get("sources")
    readers = []
    if isinstance(sources, list):
        readers = [source.get("reader") for source in sources if isinstance(source, dict)]
    try:
        return spot_of(keys, record.where, has_size=any(name in PATCHES for name in readers))
    except InputError as error:
        mistakes.add(record.where, str(error))
        return None


def _scene(record: Record, sources: list, folder: Path, mistakes: Mistakes) -> Rule | None:
    """The key ``scene`` of a record."""
    keys = cast(dict, record.keys)
    faults = []
    beside = sorted(keys.keys() & {"centre", "cells", "footprint"})
    if beside:
        faults.append(f"cuts a whole raster and cannot stand beside {beside}")
    if "split" in keys and "validation" in keys["scene"]:
        faults.append("validation: decides the split, and cannot stand beside the key split")
    checked = checked_keys(SceneKeys, keys["scene"], folder)
    faults += checked.faults
    if checked.model is not None:
        faults += checked.model.faults(len(sources))
    mistakes.add(record.where, *[f"scene: {fault}" for fault in faults])
    if checked.model is None or faults:
        return None
    if record.items:
        return Mosaic(checked.model, record.items)
    return Scene(checked.model)
