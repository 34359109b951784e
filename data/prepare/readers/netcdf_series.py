"""NetCDF series on 10 and 20 m pixels, and land-cover rasters (the layout of the WorldCereal
training patches).

Read through h5py as plain numbers: the fill value of the scene classification breaks decoders that
    mask and scale.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.grid import CELL, Grid, grid_of_pixels, resample_labels
from data.prepare.contract.radiometry import REFLECTANCE
from data.prepare.contract.source import Frames, Layer, Place, join_layers, need_crs
from data.prepare.readers.hdf5_series import need, open_hdf5
from data.prepare.readers.raster_labels import RasterLabels, code_table, map_codes
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED

FINE = ("B02", "B03", "B04", "B08")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
CLOUDY = (
    0,
    1,
    3,
    8,
    9,
    10,
    11,
)  # SCL: no data, defective, shadow, cloud medium, cloud high, cirrus, snow


@dataclass(frozen=True)
class NetcdfOptical:
    """Sentinel-2: ``path`` with the 10 m bands, ``path_20m`` with the 20 m bands and SCL, one
    ``timestamp`` axis."""

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
                    raise InputError(
                        f"{path}: expected reflectance with scale {REFLECTANCE}, found "
                        f"{scale_of(file[bands[0]])}"
                    )
        with open_hdf5(self.path) as file:
            transform, crs = georeference(file, self.path)
            if grid_of_pixels(transform, crs, file[FINE[0]].shape[1:]) is None:
                raise InputError(
                    f"{self.path}: expected 10 m pixels in a metric CRS, found {transform.a:g} m"
                )
        with open_hdf5(self.path_20m) as file:
            if georeference(file, self.path_20m) != (
                Affine(2 * CELL, 0, transform.c, 0, -2 * CELL, transform.f),
                crs,
            ):
                raise InputError(
                    f"{self.path_20m}: expected 20 m pixels from the same corner as {self.path.name}"
                )

    def place(self) -> Place:
        """The 10 m pixels."""
        with open_hdf5(self.path) as file:
            return place_of(file, FINE[0], "ms", self.path)

    def read(self, grid: Grid) -> list[Frames]:
        """One series; 20 m bands are interpolated, the classification repeated. Dates that only one
        of the files has are left out."""
        with open_hdf5(self.path) as file, open_hdf5(self.path_20m) as coarse:
            times, times_20m = timestamps(file, self.path), timestamps(coarse, self.path_20m)
            shared = sorted(set(times) & set(times_20m))
            layers = [
                _layer(file, FINE, [times.index(t) for t in shared], grid, self.path),
                _layer(
                    coarse,
                    (*COARSE, "SCL"),
                    [times_20m.index(t) for t in shared],
                    grid,
                    self.path_20m,
                ),
            ]
        if None in layers:
            return []
        scene, place = layers[1].array[:, -1], layers[1]  # T H/2 W/2
        layers[1] = _positive(
            Layer(COARSE, place.array[:, :-1], place.valid, place.transform, place.crs)
        )
        array, valid = join_layers(
            [_positive(layers[0]), layers[1]], MODALITIES["ms"], grid
        )  # T 10 n n
        codes = np.stack(
            [
                resample_labels(codes, place.transform, place.crs, grid, 1, CLOUDY[0])
                for codes in scene
            ]
        )
        return [
            Frames(
                "ms",
                array,
                valid & ~np.isin(codes, CLOUDY),
                [time.date().isoformat() for time in shared],
                f"{self.path.name}, {self.path_20m.name}",
            )
        ]


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

    def place(self) -> Place:
        """The file's pixels."""
        with open_hdf5(self.path) as file:
            return place_of(file, "VV", "sar", self.path)

    def read(self, grid: Grid) -> list[Frames]:
        """One series."""
        sensor = MODALITIES["sar"]
        with open_hdf5(self.path) as file:
            times = timestamps(file, self.path)
            raw = _layer(file, sensor.bands, list(range(len(times))), grid, self.path)
            scale = scale_of(file["VV"])
        if raw is None:
            return []
        decibel = (raw.array * scale).astype(np.float32)  # T 2 H W
        layer = Layer(sensor.bands, decibel, (raw.array != 0).all(axis=1), raw.transform, raw.crs)
        array, valid = join_layers([layer], sensor, grid)
        return [
            Frames("sar", array, valid, [time.date().isoformat() for time in times], self.path.name)
        ]


@dataclass(frozen=True)
class NetcdfLabels:
    """Land cover ``LC``, refined by crop type ``CT`` where that has a class of its own."""

    path: Path

    def check(self) -> None:
        """Both code rasters and a CRS."""
        with open_hdf5(self.path) as file:
            georeference(file, self.path)
            need(file, "LC", self.path), need(file, "CT", self.path)

    def place(self) -> Place:
        """The file's pixels."""
        with open_hdf5(self.path) as file:
            return place_of(file, "LC", None, self.path)

    def read(self, grid: Grid) -> list[RasterLabels]:
        """One RasterLabels."""
        with open_hdf5(self.path) as file:
            place = place_of(file, "LC", None, self.path)
            window = place.window(grid)
            if window is None:
                return []
            cover, crop = (file[name][window.rows, window.columns] for name in ("LC", "CT"))
        cover = map_codes(cover, code_table("worldcereal_lc", self.path))
        crop = map_codes(crop, code_table("worldcereal_ct", self.path))
        return [
            RasterLabels(
                np.where(crop == UNLABELLED, cover, crop),
                window.transform,
                place.crs,
                self.path.name,
            )
        ]


def place_of(file: h5py.File, band: str, modality: str | None, path: Path) -> Place:
    """The place of one of the file's bands."""
    transform, crs = georeference(file, path)
    return Place(modality, transform, crs, need(file, band, path).shape[-2:])


def _layer(
    file: h5py.File, bands: tuple[str, ...], rows: list[int], grid: Grid, path: Path
) -> Layer | None:
    """Raw numbers of the chosen frames over the grid, all taken as valid; None when the file does
    not touch it."""
    place = place_of(file, bands[0], None, path)
    window = place.window(grid)
    if window is None:
        return None
    array = np.stack(
        [file[band][:, window.rows, window.columns][rows] for band in bands], axis=1
    )  # T C H W
    return Layer(
        bands, array, np.ones((len(array), *array.shape[2:]), bool), window.transform, place.crs
    )


def _positive(layer: Layer) -> Layer:
    """The layer with 0 taken as no observation."""
    return Layer(
        layer.bands, layer.array, (layer.array > 0).all(axis=1), layer.transform, layer.crs
    )


def georeference(file: h5py.File, path: Path) -> tuple[Affine, CRS]:
    """Affine from the pixel-centre axes x and y, and the CRS of ``spatial_ref``."""
    x, y = need(file, "x", path)[:], need(file, "y", path)[:]
    step_x, step_y = x[1] - x[0], y[1] - y[0]
    if not (
        np.allclose(np.diff(x), step_x) and np.allclose(np.diff(y), step_y) and step_x > 0 > step_y
    ):
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
