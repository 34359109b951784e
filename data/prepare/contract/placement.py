"""Which 10 m grid a tile gets: from its place in the manifest and the pixels of its sources."""

from dataclasses import dataclass, replace

import numpy as np

from data.errors import InputError
from data.prepare.contract.blame import blamed_on
from data.prepare.contract.files import File
from data.prepare.contract.source import Place, Reader, main_file
from data.prepare.place.extent import Extent, check_fit, common_cells, nowhere
from data.prepare.place.grid import (
    MOST_CELLS,
    Grid,
    Lattice,
    grid_inside,
    grid_of_pixels,
)
from data.prepare.place.projection import is_on_earth
from data.prepare.place.spot import Centre, Footprint, Spot
from data.prepare.place.window import is_split
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
    are these pixels, and those of a tile with one lie on them. Sources that know their extent alone
    fill the tile, which has no place if nothing else gives it one.

    Args:
        readers: the sources of the tile.
        spot: where its manifest says that it lies; None when its sources say so.
        key: of the tile, for errors.

    Raises:
        InputError: no source says where it lies or how large it is, one says something impossible,
            sources contradict each other, or the tile is too large.
    """
    places = _places(readers, key)
    rasters = [place for place in places if isinstance(place, _Raster)]
    extents = [place for place in places if isinstance(place, Extent)]
    images = [raster for raster in rasters if raster.place.modality is not None]
    grid = _any_grid(images, extents, spot, key)
    check_fit(extents, grid, key)
    for raster in rasters:
        if not grid.has_place:
            raise InputError(
                f"tile {key!r}: {raster.file.name}: has a place, which the images have not; give "
                "'centre', or read it as 'patch_labels'"
            )
        crs = raster.place.georeference.crs
        if is_split(crs, grid) and raster.place.window(grid) is not None:
            raise InputError(
                f"tile {key!r}: {raster.file.name}: the tile lies across the meridian at which x "
                f"of {crs.to_string()[:60]} starts anew; warp the file into degrees or UTM"
            )
    if grid.cells > MOST_CELLS:
        advice = "say which part with 'centre' and 'cells', or with 'footprint'"
        if extents:
            advice = "cut its files into smaller ones"
        raise InputError(
            f"tile {key!r}: {grid.cells} x {grid.cells} cells, the most is {MOST_CELLS}; {advice}"
        )
    return grid


def _any_grid(images: list[_Raster], extents: list[Extent], spot: Spot | None, key: str) -> Grid:
    """The grid of a tile, however large."""
    if isinstance(spot, Centre) and spot.cells is None:
        spot = replace(spot, cells=common_cells(extents, key))
    if spot is not None:
        return spot.grid(_lattice(images, spot))
    if extents and not images:
        return nowhere(common_cells(extents, key))
    return _grid_of_images(images, key)


def _places(readers: tuple[Reader, ...], key: str) -> list[_Raster | Extent]:
    """The sources that say where their pixels lie, or how large they are; labels too.

    Raises:
        InputError: a raster whose corners have no longitude and latitude.
    """
    places: list[_Raster | Extent] = []
    for reader in readers:
        file = main_file(reader)
        with blamed_on(file):
            place = reader.place()
        if place is None:
            continue
        if isinstance(place, Extent):
            places.append(place)
            continue
        left, bottom, right, top = place.georeference.bounds(place.shape)
        x = np.array([left, right, left, right])
        y = np.array([bottom, bottom, top, top])
        if not is_on_earth(place.georeference.crs, x, y):
            raise InputError(
                f"tile {key!r}: {file.name}: its corners ({left:g}, {top:g}) and "
                f"({right:g}, {bottom:g}) are nowhere in its CRS; correct the file's georeference"
            )
        places.append(_Raster(file, place))
    return places


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
