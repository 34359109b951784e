"""Web-Mercator map tiles (PNG named ...-x-y-z.png), put together with their neighbours."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.days import day_of_text
from data.prepare.contract.files import need_file, reading
from data.prepare.contract.source import (
    Frames,
    Layer,
    Place,
    date_faults,
    join_layers,
    source_record,
)
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import Grid
from data.prepare.place.specks import SPECK, fill_specks
from data.prepare.place.window import Window
from data.tiles.modalities import MODALITIES

WEB_MERCATOR = 3857  # EPSG
SIDE = 256  # pixels of a tile
MOST_NAMED = 8  # places of tiles that a message lists
HALF_WORLD = 20_037_508.342789244  # metres: half the equator on the sphere of Web Mercator
NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.png$")
HALF_OPAQUE = 128
DEEP = ("I", "F")  # Pillow's modes of more than 8 bits, which it would cut off
# Tiles read around those needed, so that a hole that leaves them is seen to reach SPECK pixels.
RING = -(-SPECK // SIDE)


class _Address(NamedTuple):
    """The place of a tile on the world's grid of tiles; ``y`` counts south."""

    x: int
    y: int
    zoom: int


@dataclass(frozen=True)
class _Extent:
    """The rectangle that the tiles span, counted in tiles."""

    left: int
    top: int
    columns: int
    rows: int
    zoom: int

    @property
    def place(self) -> Place:
        """The Web-Mercator pixels of the rectangle."""
        transform = tile_transform(self.left, self.top, zoom=self.zoom)
        georeference = Georeference(transform, CRS.from_epsg(WEB_MERCATOR))
        return Place("hr", georeference, (self.rows * SIDE, self.columns * SIDE))


@dataclass(frozen=True)
class WebTiles:
    """Tiles of one zoom level that together fill a rectangle."""

    paths: tuple[Path, ...]
    date: str
    date_accuracy: str = "day"

    def check_keys(self) -> list[str]:
        """Date; names hold x, y, z; one zoom; a full rectangle."""
        faults = date_faults(self.date, self.date_accuracy)
        try:
            self._check_layout()
        except InputError as error:
            faults.append(str(error))
        return faults

    def check(self) -> None:
        """Images of 256 x 256 pixels, of bytes."""
        for path in self.paths:
            with open_png(path) as image:
                if image.mode.startswith(DEEP):
                    raise InputError(
                        f"{path}: expected an image of bytes, found one of more bits "
                        f"({image.mode}); scale it to bytes first"
                    )
                if image.size != (SIDE, SIDE):
                    raise InputError(
                        f"{path}: expected a tile of {SIDE} x {SIDE} pixels, found {image.size}"
                    )

    def _check_layout(self) -> None:
        """Raise InputError unless the tiles of one zoom level fill a rectangle once."""
        addresses = self._addresses()
        folder = self.paths[0].parent
        zooms = {address.zoom for address in addresses}
        if len(zooms) != 1:
            raise InputError(f"{folder}: expected tiles of one zoom level, found {sorted(zooms)}")
        extent = self._extent()
        counts = Counter((address.x, address.y) for address in addresses)
        if len(counts) < extent.columns * extent.rows and 2 * extent.columns > 2**extent.zoom:
            raise InputError(
                f"{folder}: the tiles do not fill a rectangle; if they lie on both sides of the "
                "180th meridian, list each side as another entry"
            )
        faults = list(islice(_missing_or_repeated(extent, counts), MOST_NAMED))
        if faults:
            raise InputError(
                f"{folder}: the tiles do not fill a rectangle once: missing or repeated x, y "
                f"{faults}; list them as another entry"
            )

    def place(self) -> Place:
        """The mosaic's Web-Mercator pixels."""
        return self._extent().place

    def read(self, grid: Grid) -> list[Frames]:
        """One frame: the mosaic of the tiles under the grid."""
        window = self.place().window(grid)
        if window is None:
            return []
        sensor = MODALITIES["hr"]
        array, valid = join_layers([self._mosaic(window)], sensor, grid)
        source = f"{self.paths[0].name} and {len(self.paths) - 1} more web tiles"
        frames = Frames(
            modality="hr",
            array=array,
            valid=valid,
            dates=[day_of_text(self.date)],
            source=source_record(source, self.date_accuracy),
        )
        return [frames]

    def _mosaic(self, window: Window) -> Layer:
        """The tiles that hold the window's pixels, and RING more around them, as one image."""
        extent = self._extent()
        rows = tiles_around(window.rows)
        columns = tiles_around(window.columns)
        left = extent.left + columns.start
        top = extent.top + rows.start
        width = min(len(columns), extent.columns - columns.start)
        height = min(len(rows), extent.rows - rows.start)
        mosaic = np.zeros((height * SIDE, width * SIDE, 4), np.uint8)  # H W RGBA
        for path, address in zip(self.paths, self._addresses()):
            column = address.x - left
            row = address.y - top
            if 0 <= column < width and 0 <= row < height:
                with open_png(path) as image:
                    pixels = np.asarray(image.convert("RGBA"))
                y = row * SIDE
                x = column * SIDE
                mosaic[y : y + SIDE, x : x + SIDE] = pixels
        rgb = np.moveaxis(mosaic[..., :3], 2, 0)[None]  # 1 3 H W
        opaque = fill_specks(mosaic[..., 3] >= HALF_OPAQUE, beyond=True)[None]  # 1 H W
        transform = tile_transform(left, top, zoom=extent.zoom)
        return Layer(
            bands=MODALITIES["hr"].bands,
            array=np.ascontiguousarray(rgb),
            valid=opaque,
            georeference=Georeference(transform, extent.place.georeference.crs),
        )

    def _extent(self) -> _Extent:
        x, y, zooms = zip(*self._addresses())
        return _Extent(
            left=min(x),
            top=min(y),
            columns=max(x) - min(x) + 1,
            rows=max(y) - min(y) + 1,
            zoom=zooms[0],
        )

    def _addresses(self) -> list[_Address]:
        """The address of each path."""
        addresses = []
        for path in self.paths:
            match = NAME.search(path.name)
            if not match:
                raise InputError(f"{path}: expected a tile name that ends in x-y-z.png")
            x, y, zoom = match.groups()
            addresses.append(_Address(int(x), int(y), int(zoom)))
        return addresses


def _missing_or_repeated(extent: _Extent, counts: Counter) -> Iterator[tuple[int, int]]:
    """The places in a rectangle of tiles that have none, or more than one."""
    for x in range(extent.left, extent.left + extent.columns):
        for y in range(extent.top, extent.top + extent.rows):
            if counts[x, y] != 1:
                yield x, y


@contextmanager
def open_png(path: Path) -> Iterator[Image.Image]:
    """An open image.

    Raises:
        InputError: the file is missing, is no image, or proves damaged while it is read.
    """
    need_file(path)
    with reading(path, "a PNG image"), Image.open(path) as image:
        yield image


def tiles_around(pixels: slice) -> range:
    """The tiles along an axis that hold these pixels, and RING more on both sides.

    Tiles are counted from the first one of the mosaic.
    """
    return range(max(pixels.start // SIDE - RING, 0), (pixels.stop - 1) // SIDE + RING + 1)


def tile_transform(x: int, y: int, *, zoom: int) -> Affine:
    """Affine in EPSG:3857 of the tile x, y (y counts south from the top of the world)."""
    pixel = 2 * HALF_WORLD / (SIDE << zoom)
    return Affine(pixel, 0, x * SIDE * pixel - HALF_WORLD, 0, -pixel, HALF_WORLD - y * SIDE * pixel)
