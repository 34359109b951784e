"""The pixels of a raster file: its own numbers for scale and unit, and its masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import rasterio

from data.errors import InputError
from data.prepare.contract.file_units import check_unit, is_length
from data.prepare.contract.files import File
from data.prepare.contract.radiometry import Radiometry, observations
from data.prepare.contract.source import Layer
from data.prepare.place.georeference import has_place, heights_of
from data.prepare.place.projection import WGS84, to_degrees
from data.prepare.place.specks import with_ground
from data.prepare.place.window import Window
from data.prepare.readers.raster_bands import RasterBands
from data.prepare.readers.rasters import (
    UNCHANGED,
    number_of_tag,
    pixels_of,
    scale_and_offset,
    stored_mask,
)
from data.tiles.modalities import BYTE, REFLECTANCE, Modality

# An opacity band has few pixels that are neither clear nor opaque; another band is full of them.
MOST_HALF_CLEAR = 0.05
CLEAR = 0.1  # of full opacity; lossy compression moves it a little
OPAQUE = 0.9
BYTES = 255  # the largest
ENVI_WHITE = "reflectance_scale_factor"  # of an ENVI header: the raw number of reflectance 1


@dataclass(frozen=True)
class OpenBands:
    """Bands of an open file, and what the manifest says of their numbers."""

    dataset: rasterio.DatasetReader
    bands: RasterBands
    keys: dict[str, Radiometry]  # of each band of the sensor
    path: File

    @property
    def numbers(self) -> list[int]:
        """The numbers of the bands, from 1."""
        return list(self.bands.numbers.values())

    @property
    def nodata(self) -> tuple[list[float | None], list[float | None]]:
        """The number of no observation of each band: the file's, and the manifest's."""
        own = [self.dataset.nodatavals[number - 1] for number in self.numbers]
        given = [self.keys[band].nodata for band in self.bands.numbers]
        return own, given


def read_layer(files: Sequence[OpenBands], window: Window, sensor: Modality) -> Layer:
    """Read bands in a window, in the units of the archive.

    Which pixels are missing is judged over all bands together, because a picture lacks a pixel only
    where all its bands do.

    Args:
        files: one or more with the same pixels.
        window: what is read.
        sensor: the sensor of the bands.
    """
    valid = np.ones((1, *window.shape), bool)  # 1 H W
    raws = []
    own: list[float | None] = []
    given: list[float | None] = []
    for file in files:
        raws.append(_read(file.dataset, file.numbers, window)[None])  # 1 C H W
        own += file.nodata[0]
        given += file.nodata[1]
        valid &= stored_mask(file.dataset, file.numbers, window)
        valid &= _opaque(file, window)
    raw = np.concatenate(raws, axis=1)  # 1 C H W
    valid &= observations(raw, sensor, nodata=(own, given))
    if sensor.unit == BYTE:
        valid = with_ground(valid, raw, area=_pixel_area(window))
    names: list[str] = []
    bands = []
    usable = valid
    for file, stored in zip(files, raws):
        for i, (band, number) in enumerate(file.bands.numbers.items()):
            radiometry = numbers_of_band(
                file.dataset, number, file.keys[band], sensor, path=file.path
            )
            array, fits = radiometry.convert(stored[:, [i]], valid, sensor, where=file.path)
            names.append(band)
            bands.append(array)
            usable = usable & fits
    return Layer(
        bands=tuple(names),
        array=np.concatenate(bands, axis=1),
        valid=usable,
        georeference=window.georeference,
    )


def _read(dataset: rasterio.DatasetReader, numbers: list[int], window: Window) -> np.ndarray:
    """Bands in a window (C, H, W), which may be of several types in a virtual raster."""
    if len({dataset.dtypes[number - 1] for number in numbers}) == 1:
        return dataset.read(numbers, window=pixels_of(window))
    bands = [dataset.read(number, window=pixels_of(window)) for number in numbers]
    return np.stack(bands)


def numbers_of_band(
    dataset: rasterio.DatasetReader, number: int, keys: Radiometry, sensor: Modality, *, path: File
) -> Radiometry:
    """How the numbers of a band are read: the keys, and the file's tags where they say nothing.

    The tags scale and offset give reflectance or backscatter, never bytes: for pictures, only the
    keys say how numbers become bytes.

    Args:
        dataset: the file, open.
        number: of the band, from 1.
        keys: what the manifest says.
        sensor: the band's sensor.
        path: the file, for errors.

    Raises:
        InputError: tags that contradict the keys, or that cannot be honoured.
    """
    where = f"{path}: band {number}"
    scale, offset = _tags(dataset, number, sensor, where)
    check_unit(_unit(dataset, number, sensor), keys, sensor, where=where)
    numbers = keys
    if (scale, offset) != UNCHANGED:
        numbers = _with_tags(keys, sensor, scale=scale, offset=offset, where=where)
    numbers.check_numbers(where, sensor, dataset.dtypes[number - 1])
    return only_numbers(numbers)


def _unit(dataset: rasterio.DatasetReader, number: int, sensor: Modality) -> str | None:
    """The unit of a band's numbers; None where it is that of the heights in the file's CRS.

    GDAL gives all bands the unit of the vertical CRS, if there is one, whatever they hold. It is
    right only for a sensor of heights.
    """
    unit = dataset.units[number - 1]
    if is_length(sensor):
        return unit
    heights = heights_of(dataset.crs)
    if heights is not None and unit in {axis.unit_name for axis in heights.axis_info}:
        return None
    return unit


def _tags(
    dataset: rasterio.DatasetReader, number: int, sensor: Modality, where: str
) -> tuple[float, float]:
    """Scale and offset of a band: GDAL's tags, those that CF files leave as text, or ENVI's."""
    scale, offset = scale_and_offset(dataset, number, where=where)
    if (scale, offset) != UNCHANGED or sensor.unit != REFLECTANCE:
        return scale, offset
    white = number_of_tag(dataset.tags(ns="ENVI"), ENVI_WHITE, default=1.0, where=where)
    if white <= 0:
        raise InputError(f"{where}: {ENVI_WHITE} {white:g}: expected a number above 0")
    return 1 / white, 0.0


def only_numbers(keys: Radiometry) -> Radiometry:
    """The numbers among a reader's keys."""
    return Radiometry(scale=keys.scale, offset=keys.offset, units=keys.units, nodata=keys.nodata)


def _with_tags(
    keys: Radiometry, sensor: Modality, *, scale: float, offset: float, where: str
) -> Radiometry:
    """The keys with the tags of a file where they say nothing."""
    tags = f"the file's tags say scale {scale:g} and offset {offset:g}"
    if sensor.unit == BYTE:
        if keys.scale is None:
            raise InputError(
                f"{where}: {tags}, which do not give bytes; give 'scale' and 'offset' that do "
                "(raw x scale + offset is a byte; 1 and 0 if the numbers are bytes)"
            )
        return keys
    if sensor.unit == REFLECTANCE and scale == 1 and offset:
        # The offset is in raw numbers, whose scale only the manifest can say.
        if keys.scale is None:
            raise InputError(
                f"{where}: {tags}; give 'scale' and 'offset' (raw x scale + offset is reflectance: "
                f"0.0001 and {offset * 1e-4:g} if raw numbers count ten thousandths)"
            )
        scale = keys.scale
        offset *= keys.scale
    if keys.scale is None:
        return replace(only_numbers(keys), scale=scale, offset=offset)
    if not np.allclose((keys.scale, keys.offset), (scale, offset), rtol=1e-5, atol=1e-9):
        raise InputError(
            f"{where}: {tags}, the manifest {keys.scale:g} and {keys.offset:g}; leave 'scale' and "
            "'offset' out of the manifest, or correct the tags (gdal_edit -a_scale, -a_offset)"
        )
    return keys


def _pixel_area(window: Window) -> float:
    """Square metres of ground under a pixel in the middle; NaN when its CRS has none there."""
    georeference = window.georeference
    if not has_place(georeference.crs):  # its metres are those on the ground
        return abs(georeference.transform.determinant)
    height, width = window.shape
    corners = [(width / 2, height / 2), (width / 2 + 1, height / 2), (width / 2, height / 2 + 1)]
    x, y = zip(*[window.georeference.transform @ corner for corner in corners])
    lon, lat = to_degrees(window.georeference.crs).transform(x, y)
    if not np.isfinite([lon, lat]).all():
        return np.nan
    _, _, sides = WGS84.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])  # metres
    return float(np.prod(sides))


def _opaque(file: OpenBands, window: Window) -> np.ndarray:
    """Where a file is at least half opaque, bool (H, W); everywhere without a band of opacity."""
    bands = file.bands
    if bands.opacity is None:
        return np.ones(window.shape, bool)
    opacity = file.dataset.read(bands.opacity, window=pixels_of(window))  # H W
    full = _full_opacity(opacity)
    half_clear = (opacity > CLEAR * full) & (opacity < OPAQUE * full)
    if not bands.is_sure and half_clear.mean() > MOST_HALF_CLEAR:
        raise InputError(
            f"{file.path}: band {bands.opacity} is marked as opacity, but {half_clear.mean():.0%} "
            "of its pixels are half clear; name it in 'bands' if it is data, or give 'alpha': "
            "'ignore' or 'mask'"
        )
    return opacity >= full / 2


def _full_opacity(opacity: np.ndarray) -> int:
    """The number of full opacity: 255 also in most bands of 16 bits, and 1 in masks of 0 and 1.

    A window may lie where nothing is opaque, so the largest number in it is not always the one.
    """
    largest = opacity.max()
    if largest <= 1:
        return 1
    if largest > BYTES and opacity.dtype.newbyteorder("=") == np.uint16:
        return int(np.iinfo(np.uint16).max)
    return BYTES
