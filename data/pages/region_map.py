"""The map of a dataset: its regions and samples over the outlines of countries, drawn without a
network."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data.pages.style import COLOURS, PLAIN, WIDTH
from data.tiles.regions import CELL, COLUMNS, ROWS, WEST, cell_centre

# 1:110 million, public domain. It lies among the tests of pyogrio, where another version may not
# have it.
NATURAL_EARTH = (
    Path(pyogrio.__file__).parent / "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp"
)
PANELS, WINDOW = 3, 8.0  # enlarged parts, and half their greatest size in degrees
NUMBERED = 60  # regions of a part that still bear their number of samples
LAND, REGION = {"facecolor": "#eef1ea", "edgecolor": "#b9c2b4", "linewidth": 0.5}, COLOURS["hr"]


@cache
def countries() -> list[np.ndarray]:
    """Outer rings (n, 2) of the world's countries, lon and lat; none where the file is not there:
    the map then has a graticule alone, and ``outlines`` says so."""
    if not NATURAL_EARTH.is_file():
        return []
    _, _, shapes, _ = pyogrio.raw.read(NATURAL_EARTH, columns=[])
    return [np.array(part.exterior.coords) for part in shapely.get_parts(shapely.from_wkb(shapes))]


def outlines() -> str:
    """The sentence of a map's caption on its outlines."""
    return (
        "Outlines of countries: Natural Earth."
        if countries()
        else f"No outlines of countries: pyogrio {pyogrio.__version__} came without {NATURAL_EARTH.name}."
    )


def region_map(cells: Sequence[int], counts: Sequence[int], points: np.ndarray) -> Figure:
    """The world, and up to three parts of it enlarged: regions with their number of samples,
    samples as dots.

    ``cells``: a grid cell a region; ``counts``: its samples; ``points`` (n, 2): lon and lat of
        samples in degrees."""
    counts = np.array(counts)
    centres = np.array([cell_centre(cell) for cell in cells])  # R 2
    windows = _windows(centres, counts)
    heights = (4.9, 4.0)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    world = top.subplots()
    _land(world)
    world.scatter(
        *centres.T,
        s=10 + 40 * np.sqrt(counts / counts.max()),
        marker="s",
        color=REGION,
        alpha=0.75,
        linewidths=0,
    )
    world.set(
        xlim=(-180, 180),
        ylim=(-85, 85),
        xticks=range(-180, 181, 30),
        yticks=range(-60, 61, 30),
        aspect="equal",
        title=f"regions {len(cells)}, samples {counts.sum()}",
    )
    for axis, (letter, members) in zip(
        np.atleast_1d(bottom.subplots(1, len(windows))), zip("ABC", windows)
    ):
        west, south, east, north = _zoom(axis, [cells[i] for i in members], counts[members], points)
        axis.set_title(f"{letter}: regions {len(members)}, samples {counts[members].sum()}")
        world.add_patch(
            Rectangle((west, south), east - west, north - south, fill=False, edgecolor=PLAIN)
        )
        world.annotate(
            letter, (east, north), (3, -3), textcoords="offset points", fontsize=10, weight="bold"
        )
    return figure


def _land(axis: Axes) -> None:
    """Countries, if there are any to draw."""
    axis.add_collection(PolyCollection(countries(), zorder=0.5, **LAND))


def _windows(centres: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Regions that lie together, the fullest parts first. The fullest region is the middle of a
    part."""
    left, found = np.ones(len(centres), bool), []
    while left.any() and len(found) < PANELS:
        middle = int(np.where(left, counts, -1).argmax())
        near = left & (np.abs(centres - centres[middle]).max(1) <= WINDOW)
        found.append(np.flatnonzero(near).tolist())
        left &= ~near
    return found


def _zoom(
    axis: Axes, cells: Sequence[int], counts: Sequence[int], points: np.ndarray
) -> tuple[float, float, float, float]:
    """Draw some regions enlarged; returns the part of the world shown: west, south, east, north."""
    boxes = np.array([cell_box(cell) for cell in cells])  # n 4
    west, south, east, north = *boxes[:, :2].min(0), *boxes[:, 2:].max(0)
    _land(axis)
    for count, box in zip(counts, boxes):
        axis.add_patch(
            Rectangle(box[:2], *(box[2:] - box[:2]), facecolor="#f6d9dc", edgecolor=REGION)
        )
        if len(cells) <= NUMBERED:
            axis.annotate(
                str(count),
                (box[0], box[3]),
                (2, -2),
                textcoords="offset points",
                va="top",
                fontsize=7.5,
                bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0},
            )
    axis.plot(*points.T, ".", color="#233d4d", markersize=3, zorder=5)
    middle, across = (south + north) / 2, math.cos(math.radians((south + north) / 2))
    half = 1.1 * max((east - west) / 2 * across, (north - south) / 2, 0.8)  # degrees of latitude
    box = (
        (west + east) / 2 - half / across,
        middle - half,
        (west + east) / 2 + half / across,
        middle + half,
    )
    axis.set(xlim=box[::2], ylim=box[1::2], aspect=1 / across)
    return box


def cell_box(cell: int) -> tuple[float, float, float, float]:
    """West, south, east, north of a region's grid cell in degrees. Longitudes are exact; latitudes
    lie half way between the centres of neighbours, off by less than a kilometre up to 80 degrees.
    """
    row, column = divmod(cell, COLUMNS)
    width = 180 * CELL / -WEST  # degrees: the projection is cylindrical
    lats = [
        cell_centre(other * COLUMNS)[1] for other in (max(row - 1, 0), row, min(row + 1, ROWS - 1))
    ]
    south, north = (lats[1] + lats[2]) / 2, (lats[1] + lats[0]) / 2
    return column * width - 180, max(south, -90.0), (column + 1) * width - 180, min(north, 90.0)
