"""The bands of a raster file: which of them are the sensor's, and which one is opacity."""

from dataclasses import dataclass

import rasterio
from rasterio.enums import ColorInterp

from data.errors import InputError
from data.prepare.contract.bands import (
    BandKeys,
    band_number,
    find_bands,
    is_opacity,
    registry_name,
    telling_names,
)
from data.prepare.contract.files import File
from data.tiles.modalities import Modality

MASK = "mask"
IGNORE = "ignore"
ALPHA_KEYS = ("", MASK, IGNORE)  # empty: as the file marks its bands, and the manifest names them

COLOURS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
}
# What GDAL writes for any three bands or more, whatever they are.
DEFAULT_COLOURS = ["red", "green", "blue"]
# What GDAL turns into red, green and blue by itself. It does not do so with CIE L*a*b*.
READ_AS_RGB = ("RGB", "YCBCR", "CMYK", "YCCK")


@dataclass(frozen=True)
class RasterBands:
    """The bands that are read from a file. Bands are counted from 1."""

    numbers: dict[str, int]  # band of the sensor -> its number
    opacity: int | None = None
    is_sure: bool = False  # the manifest says that this band is opacity


def bands_of_image(
    dataset: rasterio.DatasetReader, keys: BandKeys, sensor: Modality, *, alpha: str, path: File
) -> RasterBands:
    """Find all bands of a sensor in one file.

    Args:
        dataset: the file, open.
        keys: the key ``bands``.
        sensor: the sensor.
        alpha: the key ``alpha``.
        path: the file, for errors.

    Raises:
        InputError: a band is missing, ambiguous or contradicted by the file, or there is no band of
            opacity where the manifest wants one.
    """
    _need_brightness(dataset, path)
    names = band_names(dataset)
    named = _named_opacity(keys, names)
    marked = _marked_opacity(dataset, names)
    opacity = marked
    if named is not None:
        opacity = named
    positions = find_bands(keys, names, sensor, where=path, ordered=True, alpha=opacity)
    if alpha == IGNORE:
        opacity = None
    elif alpha == MASK:
        _need_opacity(opacity, list(positions.values()), path)
    elif opacity is not None and _is_data(opacity, keys, positions, count=len(names)):
        opacity = None
    numbers = {band: position + 1 for band, position in positions.items()}
    if opacity is None:
        return RasterBands(numbers)
    return RasterBands(numbers, opacity + 1, is_sure=alpha == MASK or named is not None)


def band_of_file(
    dataset: rasterio.DatasetReader, band: str, sensor: Modality, *, alpha: str, path: File
) -> RasterBands:
    """The one band of a file, beside which there may be one of opacity.

    Raises:
        InputError: the file has other bands, or calls its band something else.
    """
    _need_brightness(dataset, path)
    names = band_names(dataset)
    opacity = None
    if dataset.count == 2:
        opacity = _marked_opacity(dataset, names)
    if dataset.count != 1 and opacity != 1:
        raise InputError(f"{path}: expected one band, found {dataset.count}; use geotiff_image")
    name = names[0]
    if name is not None and registry_name(name, sensor) not in (None, band):
        raise InputError(
            f"{path}: the file calls its band {name!r}, the manifest {band!r}; correct the manifest"
        )
    if alpha == IGNORE:
        return RasterBands({band: 1})
    if opacity is None:
        if alpha == MASK:
            _need_opacity(None, [0], path)
        return RasterBands({band: 1})
    return RasterBands({band: 1}, opacity + 1, is_sure=alpha == MASK)


def _need_brightness(dataset: rasterio.DatasetReader, path: File) -> None:
    """Raise InputError unless larger numbers are brighter, as far as the file says."""
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    if ColorInterp.palette in dataset.colorinterp:
        raise InputError(
            f"{path}: expected numbers, found the codes of a palette; expand it first "
            "(gdal_translate -expand rgb)"
        )
    colours = structure.get("SOURCE_COLOR_SPACE", READ_AS_RGB[0])
    if colours.upper() not in READ_AS_RGB:
        raise InputError(
            f"{path}: expected red, green and blue, or other bands of light, found the colours "
            f"{colours!r}; convert it first (magick {path.name} -colorspace sRGB new.tif)"
        )
    if structure.get("MINISWHITE") == "YES":
        raise InputError(
            f"{path}: expected larger numbers for brighter pixels, found a TIFF whose 0 is white "
            "(MINISWHITE); turn its numbers round first (gdal_translate -scale 0 255 255 0)"
        )


def band_names(dataset: rasterio.DatasetReader) -> list[str | None]:
    """What a file calls its bands; None where it says nothing.

    Where it has no descriptions, the colours that it marks count, unless they are those that GDAL
    writes by default.
    """
    names = telling_names(dataset.descriptions)
    colours = [COLOURS.get(colour) for colour in dataset.colorinterp]
    if any(names) or colours[:3] == DEFAULT_COLOURS:
        return names
    return list(colours)


def _marked_opacity(dataset: rasterio.DatasetReader, names: list[str | None]) -> int | None:
    """The position of the band that the file marks or describes as opacity."""
    for position, name in enumerate(names):
        if name is not None and is_opacity(name):
            return position
    for position, colour in enumerate(dataset.colorinterp):
        # A description is somebody's word, a mark often only GDAL's default.
        if colour == ColorInterp.alpha and names[position] is None:
            return position
    return None


def _named_opacity(keys: BandKeys, names: list[str | None]) -> int | None:
    """The position of the band that the manifest calls opacity."""
    if isinstance(keys, dict):
        for name, key in keys.items():
            number = band_number(key)
            if is_opacity(name) and key in names:
                return names.index(str(key))
            if is_opacity(name) and number is not None and 1 <= number <= len(names):
                return number - 1
        return None
    for position, key in enumerate(keys):
        if isinstance(key, str) and is_opacity(key) and len(keys) == len(names):
            return position
    return None


def _is_data(opacity: int, keys: BandKeys, positions: dict[str, int], *, count: int) -> bool:
    """Whether the manifest names a band as data that the file marks as opacity."""
    if opacity in positions.values():
        return True
    if isinstance(keys, dict):
        for name, key in keys.items():
            if band_number(key) == opacity + 1 and not is_opacity(name):
                return True
        return False
    if len(keys) != count:
        return False
    key = keys[opacity]
    return isinstance(key, str) and not is_opacity(key)


def _need_opacity(opacity: int | None, data: list[int], path: File) -> None:
    """Raise InputError unless there is a band of opacity beside those of the sensor."""
    if opacity is None:
        raise InputError(
            f"{path}: alpha {MASK!r}: no band is marked as opacity; name it 'alpha' in 'bands'"
        )
    if opacity in data:
        raise InputError(
            f"{path}: alpha {MASK!r}: band {opacity + 1} is marked as opacity, and the manifest "
            "names it as a band of the sensor"
        )
