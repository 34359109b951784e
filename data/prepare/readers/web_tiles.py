"""Web-Mercator map tiles (PNG named ...-x-y-z.png), put together with their neighbours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.features import sieve

from data.errors import InputError
from data.prepare.contract.grid import WEB_MERCATOR, Grid
from data.prepare.contract.source import (
    Frames,
    Layer,
    Place,
    check_date,
    described,
    join_layers,
    need_file,
    reading,
)
from data.tiles.modalities import MODALITIES

SIDE = 256  # pixels of a tile
HALF_WORLD = 20_037_508.342789244  # metres: half the equator on the sphere of Web Mercator
NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.png$")
# pixels: transparent holes smaller than this are dark ground that the server took for its black
# nodata
SPECK = 400
RING = -(
    -SPECK // SIDE
)  # tiles read around those needed: a hole that leaves them is seen to reach SPECK pixels


@dataclass(frozen=True)
class WebTiles:
    """Tiles of one zoom level that together fill a rectangle."""

    paths: tuple[Path, ...]
    date: str
    date_accuracy: str = "day"

    def check(self) -> None:
        """Date; names hold x, y, z; one zoom; a full rectangle; 256-pixel images."""
        check_date(self.paths[0], self.date, self.date_accuracy)
        places = self._places()
        zooms = {z for _, _, z in places}
        if len(zooms) != 1:
            raise InputError(
                f"{self.paths[0].parent}: expected tiles of one zoom level, found {sorted(zooms)}"
            )
        columns, rows = {x for x, _, _ in places}, {y for _, y, _ in places}
        full = {
            (x, y)
            for x in range(min(columns), max(columns) + 1)
            for y in range(min(rows), max(rows) + 1)
        }
        missing = sorted(full - {(x, y) for x, y, _ in places})
        if missing or len(set(places)) != len(places):
            raise InputError(
                f"{self.paths[0].parent}: the tiles do not fill a rectangle once: missing or repeated "
                f"x, y {missing or 'one of them'}; list them as another entry"
            )
        for path in self.paths:
            with open_png(path) as image:
                if image.size != (SIDE, SIDE):
                    raise InputError(
                        f"{path}: expected a tile of {SIDE} x {SIDE} pixels, found {image.size}"
                    )

    def place(self) -> Place:
        """The mosaic's Web-Mercator pixels."""
        places = self._places()
        left, top, zoom = min(x for x, _, _ in places), min(y for _, y, _ in places), places[0][2]
        wide, high = max(x for x, _, _ in places) - left + 1, max(y for _, y, _ in places) - top + 1
        return Place(
            "hr",
            tile_transform(left, top, zoom),
            CRS.from_epsg(WEB_MERCATOR),
            (high * SIDE, wide * SIDE),
        )

    def read(self, grid: Grid) -> list[Frames]:
        """One frame: the mosaic of the tiles under the grid."""
        place, places = self.place(), self._places()
        window = place.window(grid)
        if window is None:
            return []
        left, top, zoom = min(x for x, _, _ in places), min(y for _, y, _ in places), places[0][2]
        rows, columns = tiles_around(window.rows), tiles_around(window.columns)
        near = [
            (path, x - left - columns.start, y - top - rows.start)
            for path, (x, y, _) in zip(self.paths, places)
            if x - left in columns and y - top in rows
        ]
        wide, high = max(x for _, x, _ in near) + 1, max(y for _, _, y in near) + 1
        mosaic = np.zeros((high * SIDE, wide * SIDE, 4), np.uint8)
        for path, x, y in near:
            with open_png(path) as image:
                mosaic[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = np.asarray(
                    image.convert("RGBA")
                )
        opaque = fill_specks(mosaic[..., 3] > 0)
        rgb = np.moveaxis(mosaic[..., :3], 2, 0)[None]  # 1 3 H W
        sensor = MODALITIES["hr"]
        corner = tile_transform(left + columns.start, top + rows.start, zoom)
        layer = Layer(sensor.bands, np.ascontiguousarray(rgb), opaque[None], corner, place.crs)
        array, valid = join_layers([layer], sensor, grid)
        source = f"{len(places)} web tiles from {self.paths[0].name}"
        return [Frames("hr", array, valid, [self.date], described(source, self.date_accuracy))]

    def _places(self) -> list[tuple[int, int, int]]:
        places = []
        for path in self.paths:
            match = NAME.search(path.name)
            if not match:
                raise InputError(f"{path}: expected a tile name that ends in x-y-z.png")
            places.append(tuple(int(number) for number in match.groups()))
        return places


@contextmanager
def open_png(path: Path) -> Iterator[Image.Image]:
    """An open image; InputError when it is not there, is none, or proves damaged in reading."""
    need_file(path)
    with reading(path, "a PNG image"), Image.open(path) as image:
        yield image


def tiles_around(pixels: slice) -> range:
    """Numbers of the tiles, along one axis from the first, that hold these pixels, and RING more on
    both sides."""
    return range(max(pixels.start // SIDE - RING, 0), (pixels.stop - 1) // SIDE + RING + 1)


def tile_transform(x: int, y: int, zoom: int) -> Affine:
    """Affine in EPSG:3857 of the tile x, y (y counts south from the top of the world)."""
    pixel = 2 * HALF_WORLD / (SIDE << zoom)
    return Affine(pixel, 0, x * SIDE * pixel - HALF_WORLD, 0, -pixel, HALF_WORLD - y * SIDE * pixel)


def fill_specks(opaque: np.ndarray) -> np.ndarray:
    """Mask (H, W) with transparent holes below SPECK pixels closed; larger ones, real gaps, stay."""
    return sieve(opaque.astype(np.uint8), SPECK, connectivity=8).astype(bool) | opaque
