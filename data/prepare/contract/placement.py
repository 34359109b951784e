"""Which 10 m grid a tile gets: from its place in the manifest and the pixels of its sources."""

from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from data.prepare.contract.blame import blamed_on
from data.prepare.contract.files import File
from data.prepare.contract.grid import (
    MOST_CELLS,
    Grid,
    Lattice,
    grid_inside,
    grid_of_pixels,
)
from data.prepare.contract.projection import is_on_earth
from data.prepare.contract.source import Place, Reader, main_file
from data.prepare.contract.spot import Footprint, Spot
from data.prepare.contract.window import is_split
from data.tiles.modalities import MODALITIES


@dataclass(frozen=True)
class _Raster:
    """A source that says where its pixels lie."""

    file: File
    place: Place

    @property
    def pixels(self) -> Grid | None:
        """The grid that its pixels form: those of a series, 10 m wide on the ground."""
        if MODALITIES[str(self.place.modality)].pixels > 1:
            return None
        return grid_of_pixels(self.place.georeference, self.place.shape)


def tile_grid(readers: tuple[Reader, ...], spot: Spot | None, key: str) -> Grid:
    """The grid of a tile.

    Pixels that form a grid of 10 m already are never resampled: the cells of a tile without a spot
    are these pixels, and those of a tile with one lie on them.

    Args:
        readers: the sources of the tile.
        spot: where its manifest says that it lies; None when its sources say so.
        key: of the tile, for errors.

    Raises:
        InputError: no source says where it lies, one says something impossible, or the tile is too
            large.
    """
    rasters = _rasters(readers, key)
    images = [raster for raster in rasters if raster.place.modality is not None]
    grid = _any_grid(images, spot, key)
    for raster in rasters:
        crs = raster.place.georeference.crs
        if is_split(crs, grid) and raster.place.window(grid) is not None:
            raise InputError(
                f"tile {key!r}: {raster.file.name}: the tile lies across the meridian at which x "
                f"of {crs.to_string()[:60]} starts anew; warp the file into degrees or UTM"
            )
    if grid.cells > MOST_CELLS:
        raise InputError(
            f"tile {key!r}: {grid.cells} x {grid.cells} cells, the most is {MOST_CELLS}; "
            "say which part with 'centre' and 'cells', or with 'footprint'"
        )
    return grid


def _any_grid(images: list[_Raster], spot: Spot | None, key: str) -> Grid:
    """The grid of a tile, however large."""
    if spot is None:
        return _grid_of_images(images, key)
    return spot.grid(_lattice(images, spot))


def _rasters(readers: tuple[Reader, ...], key: str) -> list[_Raster]:
    """The sources that say where their pixels lie, labels too.

    Raises:
        InputError: a raster whose corners have no longitude and latitude.
    """
    rasters = []
    for reader in readers:
        file = main_file(reader)
        with blamed_on(file):
            place = reader.place()
        if place is None:
            continue
        left, bottom, right, top = place.georeference.bounds(place.shape)
        x = np.array([left, right, left, right])
        y = np.array([bottom, bottom, top, top])
        if not is_on_earth(place.georeference.crs, x, y):
            raise InputError(
                f"tile {key!r}: {file.name}: its corners ({left:g}, {top:g}) and "
                f"({right:g}, {bottom:g}) are nowhere in its CRS; correct the file's georeference"
            )
        rasters.append(_Raster(file, place))
    return rasters


def _grid_of_images(images: list[_Raster], key: str) -> Grid:
    """The grid of the first pixels that form one; else whole cells inside the first raster."""
    if not images:
        raise InputError(
            f"tile {key!r}: no source says where it lies; add a georeferenced raster, or 'centre' "
            "and 'cells'"
        )
    for image in images:
        grid = image.pixels
        if grid is not None:
            return grid
    first = images[0]
    try:
        return grid_inside(first.place.georeference, first.place.shape)
    except InputError as error:
        raise InputError(f"tile {key!r}: {first.file.name}: {error}") from None


def _lattice(images: list[_Raster], spot: Spot) -> Lattice | None:
    """Where the pixels over a spot lie that form a grid of 10 m; None when there are none.

    Of pixels in several CRS those in the zone that the spot would have are taken, else the first.
    A footprint in a CRS of its own keeps that CRS.
    """
    default = spot.grid()
    lattices = []
    for image in images:
        pixels = image.pixels
        if pixels is not None and image.place.window(default) is not None:
            lattices.append(Lattice(pixels.crs, pixels.x0, pixels.y0))
    for lattice in lattices:
        if lattice.crs == default.crs:
            return lattice
    if not lattices or (isinstance(spot, Footprint) and spot.own_crs is not None):
        return None
    return lattices[0]
