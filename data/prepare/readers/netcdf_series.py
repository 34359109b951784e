"""NetCDF series on 10 and 20 m pixels, and land-cover rasters.

This is the layout of the WorldCereal training patches. The files are read through h5py as plain
numbers: the fill value of the scene classification breaks decoders that mask and scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.files import need_crs, need_dataset, open_hdf5
from data.prepare.contract.georeference import Georeference
from data.prepare.contract.grid import CELL, Grid, grid_of_pixels
from data.prepare.contract.radiometry import REFLECTANCE_UNIT
from data.prepare.contract.resample import resample_labels
from data.prepare.contract.sentinel2 import CLOUDY, COARSE_BANDS, FINE_BANDS, NO_DATA
from data.prepare.contract.source import Frames, Layer, Place, join_layers
from data.prepare.readers.cf_time import cf_times, iso_days, text_of
from data.prepare.readers.raster_labels import RasterLabels, code_table, map_codes
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED

CLASSIFICATION = "SCL"


@dataclass(frozen=True)
class NetcdfOptical:
    """Sentinel-2 in two files with one ``timestamp`` axis."""

    path: Path  # the 10 m bands
    path_20m: Path  # the 20 m bands and the scene classification

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Bands, CRS, 10 and 20 m pixels from one corner, reflectance x 1e4 in both files."""
        with open_hdf5(self.path) as file:
            _check_reflectance(file, FINE_BANDS)
            fine = georeference(file)
            if grid_of_pixels(fine, file[FINE_BANDS[0]].shape[1:]) is None:
                raise InputError(
                    f"{self.path}: expected 10 m pixels in a metric CRS, "
                    f"found {fine.transform.a:g} m"
                )
        with open_hdf5(self.path_20m) as file:
            _check_reflectance(file, (*COARSE_BANDS, CLASSIFICATION))
            corner = fine.transform
            doubled = Affine(2 * CELL, 0, corner.c, 0, -2 * CELL, corner.f)
            if georeference(file) != Georeference(doubled, fine.crs):
                raise InputError(
                    f"{self.path_20m}: expected 20 m pixels from the same corner as "
                    f"{self.path.name}"
                )

    def place(self) -> Place:
        """The 10 m pixels."""
        with open_hdf5(self.path) as file:
            return place_of(file, FINE_BANDS[0], "ms")

    def read(self, grid: Grid) -> list[Frames]:
        """One series of the dates that both files have.

        The 20 m bands are interpolated, the classification is repeated.
        """
        with open_hdf5(self.path) as file, open_hdf5(self.path_20m) as file_20m:
            times = timestamps(file)
            times_20m = timestamps(file_20m)
            shared = sorted(set(times) & set(times_20m))
            rows = _positions(shared, times)
            rows_20m = _positions(shared, times_20m)
            fine = _layer(file, FINE_BANDS, grid, rows=rows)
            coarse = _layer(file_20m, (*COARSE_BANDS, CLASSIFICATION), grid, rows=rows_20m)
        if fine is None or coarse is None:
            return []
        scene = coarse.array[:, -1]  # T H/2 W/2
        coarse = replace(coarse, bands=COARSE_BANDS, array=coarse.array[:, :-1])
        layers = [_zero_is_invalid(fine), _zero_is_invalid(coarse)]
        array, valid = join_layers(layers, MODALITIES["ms"], grid)  # T 10 n n, T n n
        codes = []
        for frame in scene:
            codes.append(resample_labels(frame, coarse.georeference, grid, pixels=1, fill=NO_DATA))
        frames = Frames(
            modality="ms",
            array=array,
            valid=valid & ~np.isin(np.stack(codes), CLOUDY),
            dates=iso_days(shared),
            source=f"{self.path.name}, {self.path_20m.name}",
        )
        return [frames]


@dataclass(frozen=True)
class NetcdfSar:
    """Sentinel-1: VV and VH as scaled integers in dB, 0 where there is no observation."""

    path: Path

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Both polarisations and a CRS."""
        with open_hdf5(self.path) as file:
            georeference(file)
            for band in MODALITIES["sar"].bands:
                need_series(file, band)

    def place(self) -> Place:
        """The file's pixels."""
        with open_hdf5(self.path) as file:
            return place_of(file, "VV", "sar")

    def read(self, grid: Grid) -> list[Frames]:
        """One series."""
        sensor = MODALITIES["sar"]
        with open_hdf5(self.path) as file:
            times = timestamps(file)
            layer = _layer(file, sensor.bands, grid, rows=range(len(times)))
            scale = scale_of(file["VV"])
        if layer is None:
            return []
        observed = (layer.array != 0).all(axis=1)  # T H W
        decibel = (layer.array * scale).astype(np.float32)  # T 2 H W
        array, valid = join_layers([replace(layer, array=decibel, valid=observed)], sensor, grid)
        frames = Frames(
            modality="sar", array=array, valid=valid, dates=iso_days(times), source=self.path.name
        )
        return [frames]


@dataclass(frozen=True)
class NetcdfLabels:
    """Land cover ``LC``, refined by crop type ``CT`` where that has a class of its own."""

    path: Path

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Both code rasters and a CRS."""
        with open_hdf5(self.path) as file:
            georeference(file)
            need_dataset(file, "LC")
            need_dataset(file, "CT")

    def place(self) -> Place:
        """The file's pixels."""
        with open_hdf5(self.path) as file:
            return place_of(file, "LC", None)

    def read(self, grid: Grid) -> list[RasterLabels]:
        """One RasterLabels."""
        with open_hdf5(self.path) as file:
            window = place_of(file, "LC", None).window(grid)
            if window is None:
                return []
            cover = file["LC"][window.rows, window.columns]
            crop = file["CT"][window.rows, window.columns]
        cover = map_codes(cover, code_table("worldcereal_lc"))
        crop = map_codes(crop, code_table("worldcereal_ct"))
        classes = np.where(crop == UNLABELLED, cover, crop)
        return [RasterLabels(classes, window.georeference, self.path.name)]


def place_of(file: h5py.File, band: str, modality: str | None) -> Place:
    """The place of one of the file's bands."""
    return Place(modality, georeference(file), need_dataset(file, band).shape[-2:])


def georeference(file: h5py.File) -> Georeference:
    """The pixel grid of the pixel-centre axes x and y, in the CRS of ``spatial_ref``.

    Raises:
        InputError: uneven axes, other directions than east and south, or no usable CRS.
    """
    x = need_dataset(file, "x")[:]
    y = need_dataset(file, "y")[:]
    step_x = x[1] - x[0]
    step_y = y[1] - y[0]
    is_even = np.allclose(np.diff(x), step_x) and np.allclose(np.diff(y), step_y)
    if not (is_even and step_x > 0 > step_y):
        raise InputError(
            f"{file.filename}: expected evenly spaced axes, x to the east and y to the south"
        )
    wkt = need_dataset(file, "spatial_ref").attrs.get("crs_wkt")
    crs = None
    if wkt is not None:
        crs = CRS.from_wkt(text_of(wkt))
    transform = Affine(step_x, 0, x[0] - step_x / 2, 0, step_y, y[0] - step_y / 2)
    return Georeference(transform, need_crs(Path(file.filename), crs))


def timestamps(file: h5py.File) -> list[datetime]:
    """The times of the axis ``timestamp``."""
    axis = need_dataset(file, "timestamp")
    return cf_times(Path(file.filename), "timestamp", axis[:], axis.attrs)


def need_series(file: h5py.File, band: str) -> None:
    """Raise InputError unless the band is there, with one frame a time stamp."""
    shape = need_dataset(file, band).shape
    times = len(need_dataset(file, "timestamp"))
    if len(shape) != 3 or shape[0] != times:
        raise InputError(f"{file.filename}: {band}: expected {times} x h x w, found {shape}")


def scale_of(band: h5py.Dataset) -> float:
    """The band's scale factor, 1 when it has none."""
    return float(np.ravel(band.attrs.get("scale_factor", 1.0))[0])


def _check_reflectance(file: h5py.File, bands: tuple[str, ...]) -> None:
    """Raise InputError unless the file has these bands, a CRS and reflectance x 1e4."""
    georeference(file)
    for band in bands:
        need_series(file, band)
    scale = scale_of(file[bands[0]])
    if scale != REFLECTANCE_UNIT:
        raise InputError(
            f"{file.filename}: expected reflectance with scale {REFLECTANCE_UNIT}, found {scale}"
        )


def _layer(
    file: h5py.File, bands: tuple[str, ...], grid: Grid, *, rows: Sequence[int]
) -> Layer | None:
    """Raw numbers of the chosen frames over the grid, all taken as valid.

    None when the file does not touch the grid.
    """
    window = place_of(file, bands[0], None).window(grid)
    if window is None:
        return None
    planes = [file[band][:, window.rows, window.columns][rows] for band in bands]  # T H W each
    array = np.stack(planes, axis=1)  # T C H W
    valid = np.ones((len(array), *array.shape[2:]), bool)
    return Layer(bands=bands, array=array, valid=valid, georeference=window.georeference)


def _zero_is_invalid(layer: Layer) -> Layer:
    """The layer with 0 taken as no observation."""
    return replace(layer, valid=np.all(layer.array > 0, axis=1))


def _positions(times: list[datetime], axis: list[datetime]) -> list[int]:
    """Where on a time axis each of ``times`` is."""
    return [axis.index(time) for time in times]
