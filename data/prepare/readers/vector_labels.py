"""Label source: shapes with OpenStreetMap tags in a GeoPackage, GeoJSON, FlatGeobuf or
OpenStreetMap file."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.osm import index as osm_index
from data.osm import vector_files
from data.osm.features import Features, burn
from data.osm.tags import telling
from data.prepare.contract.grid import CELL, Grid
from data.tiles.tile import LABEL_PIXELS


@dataclass(frozen=True)
class VectorLabels:
    """Areas and lines of a vector file. ``tags`` stand in for shapes without a telling tag (a file
    that holds nothing but buildings); ``layers`` names the layers to read, all that hold geometry
    by default."""

    path: Path
    tags: dict = field(default_factory=dict)
    layers: tuple[str, ...] = ()

    def check(self) -> None:
        """The file opens; its layers are there, say where they are and have tags. Raises
        InputError; reads headers."""
        if self.tags and not telling(self.tags):
            raise InputError(
                f"{self.path}: tags {self.tags}: expected an OpenStreetMap tag that names a class, such "
                f"as {{'building': 'yes'}}; see docs/classes.md"
            )
        if osm_index.is_osm(self.path):
            if self.tags or self.layers:
                raise InputError(
                    f"{self.path}: an OpenStreetMap file has its own tags and no layers; leave 'tags' and "
                    f"'layers' out"
                )
            return osm_index.check_osm(self.path)
        layers = vector_files.layers_of(self.path, self.layers)
        if not self.tags and not any(layer.columns for layer in layers):
            raise InputError(
                f"{self.path}: no column is an OpenStreetMap key that names a class, none of "
                f"{vector_files.TAG_COLUMNS} is there either; say with 'tags' what its shapes are"
            )

    def place(self) -> None:
        """None: shapes are drawn wherever a tile lies, and choose no grid."""

    def read(self, grid: Grid) -> list["VectorFeatures"]:
        """One VectorFeatures: what the file holds on the grid."""
        side = grid.cells * CELL
        bounds = (grid.x0, grid.y0 - side, grid.x0 + side, grid.y0)
        copy = osm_index.indexed(self.path, self.layers, self.tags)
        if copy:
            features = osm_index.window(copy, grid.crs, bounds)
        else:
            layers = vector_files.layers_of(self.path, self.layers)
            features = vector_files.window(self.path, layers, self.tags, grid.crs, bounds)
        return [VectorFeatures(features, grid, self.path.name + _faults(features))]


@dataclass
class VectorFeatures:
    """Features around ``grid``, in its CRS."""

    features: Features
    grid: Grid
    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """See Labels.draw and osm.burn; the grid must be the one that was read for."""
        if grid != self.grid:
            raise ValueError(f"{self.source}: was read for {self.grid}, is to be drawn on {grid}")
        size = grid.cells * LABEL_PIXELS
        return burn(self.features, grid.transform(LABEL_PIXELS), (size, size))


def _faults(features: Features) -> str:
    """' (invalid shapes: 2 mended, 1 left out)', or nothing."""
    mended = int(features.mended.sum())
    if not mended and not features.skipped:
        return ""
    return f" (invalid shapes: {mended} mended, {features.skipped} left out)"
