"""Web-Mercator map tiles (PNG named ...-x-y-z.png), mosaicked with their neighbours; GeoJSON polygons over them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from affine import Affine
from PIL import Image, UnidentifiedImageError
from rasterio.crs import CRS
from rasterio.features import sieve

from data.errors import InputError
from data.osm import burn, read_features
from data.prepare.grid import WEB_MERCATOR, Grid
from data.prepare.source import Frames, check_date, described
from data.tile import LABEL_PIXELS

SIDE = 256  # pixels of a tile
HALF_WORLD = 20_037_508.342789244  # metres: half the equator on the sphere of Web Mercator
NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.png$")
SPECK = 400  # pixels: transparent holes smaller than this are dark ground that the server took for its black nodata


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
            raise InputError(f"{self.paths[0].parent}: expected tiles of one zoom level, found {sorted(zooms)}")
        columns, rows = {x for x, _, _ in places}, {y for _, y, _ in places}
        full = {(x, y) for x in range(min(columns), max(columns) + 1) for y in range(min(rows), max(rows) + 1)}
        missing = sorted(full - {(x, y) for x, y, _ in places})
        if missing or len(set(places)) != len(places):
            raise InputError(f"{self.paths[0].parent}: the tiles do not fill a rectangle once: missing or repeated "
                             f"x, y {missing or 'one of them'}; list them as another entry")
        for path in self.paths:
            with self._open(path) as image:
                if image.size != (SIDE, SIDE):
                    raise InputError(f"{path}: expected a tile of {SIDE} x {SIDE} pixels, found {image.size}")

    def read(self) -> list[Frames]:
        """One frame: the mosaic, on Web-Mercator pixels."""
        places = self._places()
        left, top, zoom = min(x for x, _, _ in places), min(y for _, y, _ in places), places[0][2]
        wide, high = max(x for x, _, _ in places) - left + 1, max(y for _, y, _ in places) - top + 1
        mosaic = np.zeros((high * SIDE, wide * SIDE, 4), np.uint8)
        for path, (x, y, _) in zip(self.paths, places):
            with self._open(path) as image:
                row, column = (y - top) * SIDE, (x - left) * SIDE
                mosaic[row:row + SIDE, column:column + SIDE] = np.asarray(image.convert("RGBA"))
        opaque = fill_specks(mosaic[..., 3] > 0)
        rgb = np.moveaxis(mosaic[..., :3], 2, 0)[None]  # 1 3 H W
        source = f"{len(places)} web tiles from {self.paths[0].name}"
        return [Frames("hr", np.ascontiguousarray(rgb), opaque[None], [self.date], tile_transform(left, top, zoom),
                       CRS.from_epsg(WEB_MERCATOR), described(source, self.date_accuracy))]

    def _places(self) -> list[tuple[int, int, int]]:
        places = []
        for path in self.paths:
            match = NAME.search(path.name)
            if not match:
                raise InputError(f"{path}: expected a tile name that ends in x-y-z.png")
            places.append(tuple(int(number) for number in match.groups()))
        return places

    @staticmethod
    def _open(path: Path) -> Image.Image:
        try:
            return Image.open(path)
        except UnidentifiedImageError:
            raise InputError(f"{path}: expected a PNG image, found something else or a damaged one") from None


@dataclass(frozen=True)
class GeoJsonLabels:
    """Polygons in lon/lat with OpenStreetMap tags; ``tags`` holds for features that have no telling tag."""

    path: Path
    tags: dict = field(default_factory=dict)

    def check(self) -> None:
        """The file parses and at least one polygon has a class."""
        if not read_features(self.path, self.tags):
            raise InputError(f"{self.path}: no polygon has a tag that names a class; give default 'tags'")

    def read(self) -> list["PolygonLabels"]:
        """One PolygonLabels."""
        return [PolygonLabels(read_features(self.path, self.tags), self.path.name)]


@dataclass
class PolygonLabels:
    """Polygons in lon/lat with their class index."""

    features: list[tuple[dict, int]]
    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """See Labels.draw; a pixel belongs to the polygon that holds its centre."""
        size = grid.cells * LABEL_PIXELS
        return burn(self.features, grid.crs, grid.transform(LABEL_PIXELS), (size, size))


def tile_transform(x: int, y: int, zoom: int) -> Affine:
    """Affine in EPSG:3857 of the tile x, y (y counts south from the top of the world)."""
    pixel = 2 * HALF_WORLD / (SIDE << zoom)
    return Affine(pixel, 0, x * SIDE * pixel - HALF_WORLD, 0, -pixel, HALF_WORLD - y * SIDE * pixel)


def fill_specks(opaque: np.ndarray) -> np.ndarray:
    """Mask (H, W) with transparent holes below SPECK pixels closed; larger ones, real gaps, stay."""
    return sieve(opaque.astype(np.uint8), SPECK, connectivity=8).astype(bool) | opaque
