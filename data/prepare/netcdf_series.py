"""NetCDF series on 10 and 20 m pixels, and land-cover rasters (the layout of the WorldCereal training patches).

Read through h5py as plain numbers: the fill value of the scene classification breaks decoders that mask and scale.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from rasterio.crs import CRS

from data.classes import map_codes
from data.errors import InputError
from data.modalities import MODALITIES, observed
from data.prepare.geotiff import RasterLabels
from data.prepare.grid import CELL, grid_of_pixels, resample
from data.prepare.hdf5_series import need, open_hdf5
from data.prepare.source import Frames, need_crs
from data.tile import UNLABELLED

FINE = ("B02", "B03", "B04", "B08")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
CLOUDY = (0, 1, 3, 8, 9, 10, 11)  # SCL: no data, defective, shadow, cloud medium, cloud high, cirrus, snow
REFLECTANCE = 1e-4  # one unit of the archive


@dataclass(frozen=True)
class NetcdfOptical:
    """Sentinel-2: ``path`` with the 10 m bands, ``path_20m`` with the 20 m bands and SCL, one ``timestamp`` axis."""

    path: Path
    path_20m: Path

    def check(self) -> None:
        """Bands, CRS, 10 m pixels, reflectance x 1e4 in both files."""
        for path, bands in ((self.path, FINE), (self.path_20m, (*COARSE, "SCL"))):
            with open_hdf5(path) as file:
                georeference(file, path)
                for band in bands:
                    need_series(file, band, path)
                if scale_of(file[bands[0]]) != REFLECTANCE:
                    raise InputError(f"{path}: expected reflectance with scale {REFLECTANCE}, found "
                                     f"{scale_of(file[bands[0]])}")
        with open_hdf5(self.path) as file:
            transform, crs = georeference(file, self.path)
            if grid_of_pixels(transform, crs, file[FINE[0]].shape[1:]) is None:
                raise InputError(f"{self.path}: expected 10 m pixels in a metric CRS, found {transform.a:g} m")
        with open_hdf5(self.path_20m) as file:
            if georeference(file, self.path_20m) != (Affine(2 * CELL, 0, transform.c, 0, -2 * CELL, transform.f), crs):
                raise InputError(f"{self.path_20m}: expected 20 m pixels from the same corner as {self.path.name}")

    def read(self) -> list[Frames]:
        """One series on the 10 m pixels; 20 m bands are interpolated, the classification repeated. Dates that only
        one of the files has are left out."""
        with open_hdf5(self.path) as file, open_hdf5(self.path_20m) as coarse:
            transform, crs = georeference(file, self.path)
            transform_20m, crs_20m = georeference(coarse, self.path_20m)
            times, times_20m = timestamps(file, self.path), timestamps(coarse, self.path_20m)
            shared = sorted(set(times) & set(times_20m))
            rows, rows_20m = [times.index(t) for t in shared], [times_20m.index(t) for t in shared]
            fine_bands = np.stack([file[band][:][rows] for band in FINE], axis=1)  # T 4 H W
            coarse_bands = np.stack([coarse[band][:][rows_20m] for band in COARSE], axis=1)  # T 6 H/2 W/2
            scene = coarse["SCL"][:][rows_20m]  # T H/2 W/2
        grid = grid_of_pixels(transform, crs, fine_bands.shape[2:])
        raised, present = resample(coarse_bands, (coarse_bands > 0).all(axis=1), transform_20m, crs_20m, grid)
        clear = ~np.isin(scene, CLOUDY)
        clear = clear.repeat(2, axis=1).repeat(2, axis=2)[:, :grid.cells, :grid.cells]  # T n n
        by_band = dict(zip(FINE, np.moveaxis(fine_bands[..., :grid.cells, :grid.cells], 1, 0)))
        by_band |= dict(zip(COARSE, np.moveaxis(raised, 1, 0)))
        sensor = MODALITIES["ms"]
        array = np.stack([by_band[band] for band in sensor.bands], axis=1).astype(sensor.dtype)  # T 10 n n
        valid = clear & present & observed(array, sensor)
        return [Frames("ms", array, valid, [time.date().isoformat() for time in shared], grid.transform(), crs,
                       f"{self.path.name}, {self.path_20m.name}")]


@dataclass(frozen=True)
class NetcdfSar:
    """Sentinel-1: VV and VH as scaled integers in dB, 0 where there is no observation."""

    path: Path

    def check(self) -> None:
        """Both polarisations and a CRS."""
        with open_hdf5(self.path) as file:
            georeference(file, self.path)
            for band in MODALITIES["sar"].bands:
                need_series(file, band, self.path)

    def read(self) -> list[Frames]:
        """One series on the file's own pixels."""
        with open_hdf5(self.path) as file:
            transform, crs = georeference(file, self.path)
            raw = np.stack([file[band][:] for band in MODALITIES["sar"].bands], axis=1)  # T 2 H W
            scale = scale_of(file["VV"])
            days = [time.date().isoformat() for time in timestamps(file, self.path)]
        return [Frames("sar", (raw * scale).astype(np.float32), (raw != 0).all(axis=1), days, transform, crs,
                       self.path.name)]


@dataclass(frozen=True)
class NetcdfLabels:
    """Land cover ``LC``, refined by crop type ``CT`` where that has a class of its own."""

    path: Path

    def check(self) -> None:
        """Both code rasters and a CRS."""
        with open_hdf5(self.path) as file:
            georeference(file, self.path)
            need(file, "LC", self.path), need(file, "CT", self.path)

    def read(self) -> list[RasterLabels]:
        """One RasterLabels."""
        with open_hdf5(self.path) as file:
            transform, crs = georeference(file, self.path)
            cover = map_codes(file["LC"][:], "worldcereal_lc")
            crop = map_codes(file["CT"][:], "worldcereal_ct")
        return [RasterLabels(np.where(crop == UNLABELLED, cover, crop), transform, crs, self.path.name)]


def georeference(file: h5py.File, path: Path) -> tuple[Affine, CRS]:
    """Affine from the pixel-centre axes x and y, and the CRS of ``spatial_ref``."""
    x, y = need(file, "x", path)[:], need(file, "y", path)[:]
    step_x, step_y = x[1] - x[0], y[1] - y[0]
    if not (np.allclose(np.diff(x), step_x) and np.allclose(np.diff(y), step_y) and step_x > 0 > step_y):
        raise InputError(f"{path}: expected evenly spaced axes, x to the east and y to the south")
    wkt = need(file, "spatial_ref", path).attrs.get("crs_wkt")
    crs = CRS.from_wkt(wkt.decode() if isinstance(wkt, bytes) else wkt) if wkt is not None else None
    return Affine(step_x, 0, x[0] - step_x / 2, 0, step_y, y[0] - step_y / 2), need_crs(path, crs)


def timestamps(file: h5py.File, path: Path) -> list[datetime]:
    """The time axis; its unit attribute says 'seconds since <date> <time>'."""
    axis = need(file, "timestamp", path)
    unit = axis.attrs.get("units", b"")
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    if not unit.startswith("seconds since "):
        raise InputError(f"{path}: expected a time axis in 'seconds since ...', found {unit!r}")
    start = datetime.fromisoformat(unit.removeprefix("seconds since "))
    return [start + timedelta(seconds=int(second)) for second in axis[:]]


def need_series(file: h5py.File, band: str, path: Path) -> None:
    """A band must be there, with one frame a time stamp."""
    shape, times = need(file, band, path).shape, len(need(file, "timestamp", path))
    if len(shape) != 3 or shape[0] != times:
        raise InputError(f"{path}: {band}: expected {times} x h x w, found {shape}")


def scale_of(band: h5py.Dataset) -> float:
    """The band's scale factor, 1 when it has none."""
    return float(np.ravel(band.attrs.get("scale_factor", 1.0))[0])
