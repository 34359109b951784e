"""Label source: shapes with OpenStreetMap tags in a vector file.

GeoPackage, GeoJSON, FlatGeobuf and OpenStreetMap files are read.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.osm import index as osm_index
from data.osm import vector_files
from data.osm.features import Features, burn
from data.osm.tags import is_telling
from data.prepare.contract.source import Remark
from data.prepare.place.grid import Grid
from data.tiles.tile import LABEL_PIXELS


@dataclass(frozen=True)
class VectorLabels:
    """Areas and lines of a vector file."""

    path: Path
    # They stand in for shapes without a telling tag, as in a file of nothing but buildings.
    tags: dict = field(default_factory=dict)
    layers: tuple[str, ...] = ()  # the layers to read; empty: all that hold geometry

    def check_keys(self) -> list[str]:
        """Tags that name a class."""
        faults = []
        wrong = {key: value for key, value in self.tags.items() if not isinstance(value, str)}
        if wrong:
            faults.append(f"tags: expected text for each key, found {wrong}")
        elif self.tags and not is_telling(self.tags):
            faults.append(
                f"tags {self.tags}: expected an OpenStreetMap tag that names a class, "
                "such as {'building': 'yes'}; see docs/classes.md"
            )
        if osm_index.is_osm(self.path) and (self.tags or self.layers):
            faults.append(
                "tags, layers: an OpenStreetMap file has its own tags and no layers; leave them out"
            )
        return faults

    def check(self) -> None:
        """The file opens; its layers are there, say where they are and have tags."""
        if osm_index.is_osm(self.path):
            osm_index.check_osm(self.path)
            return
        layers = vector_files.layers_of(self.path, self.layers)
        if not self.tags and not any(layer.columns for layer in layers):
            raise InputError(
                f"{self.path}: no column is an OpenStreetMap key that names a class, none of "
                f"{vector_files.TAG_COLUMNS} is there either; say with 'tags' what its shapes are"
            )

    def place(self) -> None:
        """None: shapes are drawn wherever a tile lies, and choose no grid."""

    def read(self, grid: Grid) -> list["VectorFeatures | Remark"]:
        """One VectorFeatures: what the file holds on the grid; else a remark that says why not.

        Raises:
            InputError: nobody knows where the grid lies.
        """
        if not grid.has_place:
            raise InputError(
                f"{self.path}: shapes need a tile with a place, and no image has one; give "
                "'centre' or 'footprint'"
            )
        copy = osm_index.indexed(self.path, self.layers, self.tags)
        if copy:
            features = osm_index.window(copy, grid.crs, grid.bounds)
            whole = osm_index.counts_of(copy)
            layers = vector_files.layers_of(copy)
        else:
            layers = vector_files.layers_of(self.path, self.layers)
            features = vector_files.window(
                self.path, layers, default_tags=self.tags, target=grid.crs, bounds=grid.bounds
            )
            whole = None
        if not len(features):
            reason = _reason(features, whole) or _elsewhere(layers, grid)
            return [Remark(f"left out, {reason}")]
        source = self.path.name + _fault_note(features, whole)
        return [VectorFeatures(features, grid, source)]


@dataclass
class VectorFeatures:
    """Features around ``grid``, in its CRS."""

    features: Features
    grid: Grid
    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """See ``Labels.draw`` and ``data.osm.features.burn``.

        Raises:
            ValueError: the grid is not the one that was read for.
        """
        if grid != self.grid:
            raise ValueError(f"{self.source}: was read for {self.grid}, is to be drawn on {grid}")
        size = grid.cells * LABEL_PIXELS
        return burn(self.features, grid.transform(LABEL_PIXELS), (size, size))


def _fault_note(features: Features, whole: osm_index.Counts | None) -> str:
    """What is wrong with the shapes over a tile, and what the whole file lacks; or nothing.

    Nobody knows where shapes lie that lack their corners, so these are counted of the whole file.
    """
    facts = []
    mended = int(features.mended.sum())
    if mended or features.skipped:
        facts.append(f"invalid shapes: {mended} mended, {features.skipped} left out")
    if whole is not None:
        lost = {
            "incomplete ways": whole.incomplete_ways,
            "incomplete relations": whole.incomplete_relations,
            "invalid shapes": whole.skipped,
        }
        named = [f"{count} {name}" for name, count in lost.items() if count]
        if named:
            facts.append(f"of the whole file left out: {', '.join(named)}")
    if not facts:
        return ""
    return f" ({'; '.join(facts)})"


def _reason(features: Features, whole: osm_index.Counts | None) -> str:
    """Why nothing is drawn, where shapes are there; else nothing."""
    if whole is not None and not whole.shapes:
        shapes = f"the file's {whole.classless} shapes"
    elif features.classless:
        shapes = f"the {features.classless} shapes around the tile"
    else:
        return ""
    return f"none of {shapes} has a tag that names a visible class"


def _elsewhere(layers: list[vector_files.Layer], grid: Grid) -> str:
    """Where the shapes of a file lie that has none over a tile."""
    filled = [layer for layer in layers if layer.bounds is not None]
    if not filled:
        return "has no shapes at all"
    lon, lat = grid.centre
    spans = []
    for layer in filled:
        left, bottom, right, top = layer.bounds or (0, 0, 0, 0)
        span = f"{left:.6g} to {right:.6g}, {bottom:.6g} to {top:.6g} ({layer.crs.to_string()})"
        if layer.crs.is_geographic and left <= lat <= right and bottom <= lon <= top:
            span += "; with latitude and longitude exchanged they would lie around it"
        spans.append(span)
    return f"has no shape over the tile at {lon:.4f}, {lat:.4f}; its shapes span {'; '.join(spans)}"
