"""The pixels of a raster file: its own numbers for scale and unit, and its masks."""

from dataclasses import dataclass, replace

import numpy as np
import rasterio

from data.errors import InputError
from data.prepare.contract.files import File
from data.prepare.contract.grid import CELL
from data.prepare.contract.projection import WGS84, to_degrees
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import Layer
from data.prepare.contract.specks import SPECK, fill_specks
from data.prepare.contract.window import Window
from data.prepare.readers.raster_bands import RasterBands
from data.prepare.readers.rasters import pixels_of, stored_mask
from data.tiles.modalities import BYTE, DECIBEL, REFLECTANCE, Modality

# Units in which files give backscatter -> the key that says so.
BACKSCATTER_UNITS = {
    "db": "db",
    "decibel": "db",
    "decibels": "db",
    "power": "power",
    "linear": "power",
    "linear power": "power",
    "intensity": "power",
    "amplitude": "amplitude",
}
# Units of numbers that may be reflectance x 10,000, or reflectance when scaled.
NO_UNIT = ("", "1", "-", "none", "unitless", "dimensionless", "dn", "digital number", "count")
# An opacity band has few pixels that are neither clear nor opaque; another band is full of them.
MOST_HALF_CLEAR = 0.05
CLEAR = 0.1  # of full opacity; lossy compression moves it a little
OPAQUE = 0.9


@dataclass(frozen=True)
class RasterPixels:
    """Bands of a file in a window, as stored."""

    bands: tuple[str, ...]  # of the sensor
    raw: np.ndarray  # (1, C, H, W)
    valid: np.ndarray  # (1, H, W) bool
    numbers: list[Radiometry]  # of each band
    window: Window

    def layer(self, sensor: Modality, path: File) -> Layer:
        """The pixels in the units of the archive."""
        valid = self.valid
        converted = []
        for i, radiometry in enumerate(self.numbers):
            array, usable = radiometry.convert(self.raw[:, [i]], self.valid, sensor, where=path)
            converted.append(array)
            valid = valid & usable
        return Layer(
            bands=self.bands,
            array=np.concatenate(converted, axis=1),
            valid=valid,
            georeference=self.window.georeference,
        )


def read_pixels(
    dataset: rasterio.DatasetReader,
    bands: RasterBands,
    window: Window,
    *,
    keys: Radiometry,
    sensor: Modality,
    path: File,
) -> RasterPixels:
    """Read bands of an open file in a window.

    Args:
        dataset: the file.
        bands: its bands.
        window: what is read.
        keys: what the manifest says.
        sensor: the sensor of the bands.
        path: the file, for errors.
    """
    numbers = list(bands.numbers.values())
    raw = _read(dataset, numbers, window)[None]  # 1 C H W
    file_nodata = [dataset.nodatavals[number - 1] for number in numbers]
    valid = keys.observed(raw, sensor, file_nodata=file_nodata)  # 1 H W
    valid &= stored_mask(dataset, numbers, window)
    if bands.opacity is not None:
        opacity = dataset.read(bands.opacity, window=pixels_of(window))  # H W
        valid &= _opaque(opacity, bands, path)
    if sensor.unit == BYTE:
        closed = fill_specks(valid[0], least=_speck(window))  # H W
        is_ground = (np.isfinite(raw) & (raw >= 0)).all(axis=1)  # black or white, and not -9999
        valid |= closed & is_ground
    radiometry = []
    for number in numbers:
        radiometry.append(numbers_of_band(dataset, number, keys, sensor, path=path))
    return RasterPixels(
        bands=tuple(bands.numbers), raw=raw, valid=valid, numbers=radiometry, window=window
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
    scale, offset = _tags(dataset, number, where)
    _check_unit(dataset.units[number - 1], keys, sensor, where)
    numbers = keys
    if (scale, offset) != (1.0, 0.0):
        numbers = _with_tags(keys, sensor, scale=scale, offset=offset, where=where)
    numbers.check_numbers(where, sensor, dataset.dtypes[number - 1])
    return only_numbers(numbers)


def _tags(dataset: rasterio.DatasetReader, number: int, where: str) -> tuple[float, float]:
    """Scale and offset of a band by GDAL's tags, or by those that CF files leave as text."""
    scale = dataset.scales[number - 1]
    offset = dataset.offsets[number - 1]
    if (scale, offset) != (1.0, 0.0):
        return scale, offset
    texts = {name.lower(): text for name, text in dataset.tags().items()}
    texts.update({name.lower(): text for name, text in dataset.tags(number).items()})
    try:
        return float(texts.get("scale_factor", 1)), float(texts.get("add_offset", 0))
    except ValueError:
        raise InputError(
            f"{where}: the file's tags scale_factor {texts.get('scale_factor')!r} and add_offset "
            f"{texts.get('add_offset')!r}: expected numbers; correct the tags"
        ) from None


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


def _check_unit(unit: str | None, keys: Radiometry, sensor: Modality, where: str) -> None:
    """Raise InputError when the unit that a file names is not the one that the keys say."""
    name = (unit or "").strip().lower()
    if sensor.unit == DECIBEL and BACKSCATTER_UNITS.get(name, keys.units) != keys.units:
        raise InputError(
            f"{where}: the file's unit is {unit!r}, the manifest's 'units' {keys.units!r}; "
            f"give 'units': {BACKSCATTER_UNITS[name]!r}, or correct the file's unit"
        )
    if sensor.unit != REFLECTANCE or keys.scale is not None:
        return
    if name.rstrip("s") not in NO_UNIT and not name.startswith(("reflectance", "surface_reflect")):
        raise InputError(
            f"{where}: the file's unit is {unit!r}; give 'scale' (raw x scale + offset is "
            "reflectance: 0.01 for per cent)"
        )


def _speck(window: Window) -> int:
    """The number of pixels that a hole must have to stay: at most those of a cell."""
    height, width = window.shape
    corners = [(width / 2, height / 2), (width / 2 + 1, height / 2), (width / 2, height / 2 + 1)]
    x, y = zip(*[window.georeference.transform @ corner for corner in corners])
    lon, lat = to_degrees(window.georeference.crs).transform(x, y)
    if not np.isfinite([lon, lat]).all():
        return SPECK
    _, _, sides = WGS84.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])  # metres
    return min(SPECK, int(CELL**2 / np.prod(sides)))


def _opaque(opacity: np.ndarray, bands: RasterBands, path: File) -> np.ndarray:
    """Opacity (H, W) of any type -> bool (H, W), true for at least half of the full one.

    Full opacity is 255 even in bands of 16 bits; masks of 0 and 1 are opacity too.
    """
    full = min(float(opacity.max()), 255.0)
    if full <= 0:
        return np.zeros(opacity.shape, bool)
    half_clear = (opacity > CLEAR * full) & (opacity < OPAQUE * full)
    if not bands.is_sure and half_clear.mean() > MOST_HALF_CLEAR:
        raise InputError(
            f"{path}: band {bands.opacity} is marked as opacity, but {half_clear.mean():.0%} of "
            "its pixels are half clear; name it in 'bands' if it is data, or give 'alpha': "
            "'ignore' or 'mask'"
        )
    return opacity >= full / 2
