"""One acquisition as GeoTIFF, COG or any other raster that GDAL reads: all bands in one file, or a
file a band."""

from dataclasses import dataclass

import numpy as np
from rasterio.enums import MaskFlags

from data.errors import InputError
from data.prepare.contract.grid import Grid
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import (
    File,
    Frames,
    Layer,
    Place,
    check_date,
    described,
    join_layers,
    need_crs,
    need_modality,
    need_north_up,
    open_raster,
    pixels_of,
)
from data.prepare.readers.raster_labels import codes_on_grid
from data.tiles.modalities import MODALITIES


@dataclass(frozen=True, kw_only=True)
class _Acquisition(Radiometry):
    """Keys that both readers share. ``mask``: a raster of codes, of which ``masked`` hide the
    pixel."""

    modality: str
    date: str
    date_accuracy: str = "day"  # see source.ACCURACIES
    mask: File | None = None
    masked: tuple[int, ...] = ()

    def _check(self, path: File, bands: tuple[str, ...]) -> None:
        check_date(path, self.date, self.date_accuracy)
        need_modality(path, self.modality, bands)
        if (self.mask is None) != (not self.masked):
            raise InputError(
                f"{path}: mask and masked need each other: a raster of codes, and the codes that hide"
            )
        if self.mask is not None:
            with open_raster(self.mask) as dataset:
                need_crs(self.mask, dataset.crs), need_north_up(self.mask, dataset.transform)

    def _frames(self, layers: list[Layer | None], grid: Grid, name: str) -> list[Frames]:
        """One frame on the grid, the mask applied; none if a layer does not touch it."""
        if None in layers:
            return []
        array, valid = join_layers(layers, MODALITIES[self.modality], grid)
        if self.mask is not None:
            codes = codes_on_grid(self.mask, grid, MODALITIES[self.modality].pixels)
            valid &= False if codes is None else ~np.isin(codes, self.masked)
        return [
            Frames(self.modality, array, valid, [self.date], described(name, self.date_accuracy))
        ]

    def _layer(
        self, path: File, names: tuple[str, ...], numbers: list[int], grid: Grid
    ) -> Layer | None:
        """Bands of one file over the grid; None when it does not touch it."""
        with open_raster(path) as dataset:
            window = place_of(dataset, self.modality).window(grid)
            if window is None:
                return None
            raw = dataset.read(numbers, window=pixels_of(window))[None]  # 1 C H W
            mask = _file_mask(dataset, numbers, window)  # H W
            crs = dataset.crs
        array, seen = self.in_units(raw, MODALITIES[self.modality])
        return Layer(names, array, seen & mask, window.transform, crs)


@dataclass(frozen=True)
class GeoTiffImage(_Acquisition):
    """``bands`` names the file's bands in file order; bands that the sensor does not have are left
    out."""

    path: File
    bands: tuple[str, ...]

    def check(self) -> None:
        """Modality known, date, band count and names, north-up pixels with a CRS, numbers that fit."""
        self._check(self.path, self.bands)
        with open_raster(self.path) as dataset:
            if dataset.count != len(self.bands):
                raise InputError(
                    f"{self.path}: expected {len(self.bands)} bands {list(self.bands)}, "
                    f"found {dataset.count}; correct the file or the manifest's bands"
                )
            named = tuple(dataset.descriptions)
            if any(named) and named != self.bands:
                raise InputError(
                    f"{self.path}: the file calls its bands {list(named)}, the manifest "
                    f"{list(self.bands)}; correct the manifest"
                )
            check_place(dataset, self.path)
            self.check_numbers(self.path, MODALITIES[self.modality], dataset.dtypes[0])

    def place(self) -> Place:
        """The file's pixels."""
        with open_raster(self.path) as dataset:
            return place_of(dataset, self.modality)

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        names = MODALITIES[self.modality].bands
        numbers = [self.bands.index(band) + 1 for band in names]
        return self._frames([self._layer(self.path, names, numbers, grid)], grid, self.path.name)


@dataclass(frozen=True)
class GeoTiffBands(_Acquisition):
    """``files`` maps each band of the sensor to a file of that one band. Pixel sizes may differ."""

    files: dict[str, File]

    def check(self) -> None:
        """As for one file, for each; one band a file."""
        first = next(iter(self.files.values()))
        self._check(first, tuple(self.files))
        unknown = [band for band in self.files if band not in MODALITIES[self.modality].bands]
        if unknown:
            raise InputError(
                f"{first}: {self.modality} has no bands {unknown}; expected exactly "
                f"{list(MODALITIES[self.modality].bands)}"
            )
        for path in self.files.values():
            with open_raster(path) as dataset:
                if dataset.count != 1:
                    raise InputError(
                        f"{path}: expected one band, found {dataset.count}; use geotiff_image"
                    )
                check_place(dataset, path)
                self.check_numbers(path, MODALITIES[self.modality], dataset.dtypes[0])

    def place(self) -> Place:
        """The pixels of the finest band."""
        places = []
        for path in self.files.values():
            with open_raster(path) as dataset:
                places.append(place_of(dataset, self.modality))
        return min(places, key=lambda place: place.transform.a)

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        layers = [self._layer(path, (band,), [1], grid) for band, path in self.files.items()]
        first = next(iter(self.files.values()))
        return self._frames(layers, grid, f"{len(self.files)} files of {first.name}")


def place_of(dataset, modality: str | None) -> Place:
    """The place of an open raster."""
    return Place(modality, dataset.transform, dataset.crs, dataset.shape)


def check_place(dataset, path: File) -> None:
    """North-up pixels with a CRS."""
    need_crs(path, dataset.crs)
    need_north_up(path, dataset.transform)


def _file_mask(dataset, numbers: list[int], window) -> np.ndarray:
    """The file's own nodata or mask, bool (H, W). An alpha band is none: the manifest names every
    band as data, and writers of four-band aerials often mark the fourth as alpha."""
    if any(MaskFlags.alpha in flags for flags in dataset.mask_flag_enums):
        return np.ones(window.shape, bool)
    return (dataset.read_masks(numbers, window=pixels_of(window)) > 0).all(axis=0)
