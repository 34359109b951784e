"""The map of a dataset: its regions and samples over the outlines of countries."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data.pages.outlines import countries
from data.pages.style import PLAIN, WIDTH, colour
from data.pages.words import number_of
from data.tiles.regions import CELL, COLUMNS, ROWS, WEST, cell_centre

PARTS = "ABC"  # names of the enlarged parts; there are at most as many
PART_REACH = 8.0  # degrees from the middle region of a part to the centre of its farthest one
NUMBERED = 60  # a part with more regions than this shows no number of samples in each
LEAST_HALF_HEIGHT = 0.8  # degrees of latitude, of an enlarged part
WORLD_HEIGHT = 5.0  # inches
PARTS_HEIGHT = 4.2  # inches
LAND: dict[str, Any] = {"facecolor": "#eef1ea", "edgecolor": "#b9c2b4", "linewidth": 0.5}
REGION = colour("hr")
REGION_FILL = "#f6d9dc"
SAMPLE = "#233d4d"


class Box(NamedTuple):
    """A part of the world between two meridians and two parallels, in degrees."""

    west: float
    south: float
    east: float
    north: float


def region_map(cells: Sequence[int], samples: Sequence[int], points: np.ndarray) -> Figure:
    """Draw the world, and up to three parts of it enlarged.

    Args:
        cells: the grid cell of each region.
        samples: the number of samples of each region.
        points: (n, 2) longitude and latitude of the samples in degrees, drawn as dots.
    """
    counts = np.array(samples)  # R
    centres = np.array([cell_centre(cell) for cell in cells])  # R 2
    parts = _parts(centres, counts)
    figure = Figure(figsize=(WIDTH, WORLD_HEIGHT + PARTS_HEIGHT), layout="constrained")
    top, bottom = figure.subfigures(
        2, 1, height_ratios=(WORLD_HEIGHT, PARTS_HEIGHT), squeeze=False
    ).ravel()
    world = top.subplots()
    _draw_world(world, centres, counts)
    panels = bottom.subplots(1, len(parts), squeeze=False).ravel()
    for panel, letter, members in zip(panels, PARTS, parts):
        box = _draw_part(panel, [cells[i] for i in members], counts[members], points)
        panel.set_title(f"{letter}: {_summary(counts[members])}")
        _mark(world, letter, box)
    return figure


def cell_box(cell: int) -> Box:
    """The part of the world that a grid cell covers.

    Longitudes are exact. Latitudes lie half way between the centres of neighbouring cells, which is
    off by less than a kilometre up to 80 degrees.
    """
    row, column = divmod(cell, COLUMNS)
    width = 180 * CELL / -WEST  # degrees; the projection is cylindrical
    above = _latitude(max(row - 1, 0))
    middle = _latitude(row)
    below = _latitude(min(row + 1, ROWS - 1))
    south = max((middle + below) / 2, -90.0)
    north = min((middle + above) / 2, 90.0)
    return Box(column * width - 180, south, (column + 1) * width - 180, north)


def _latitude(row: int) -> float:
    """Latitude of the centres of a row of cells."""
    return cell_centre(row * COLUMNS)[1]


def _summary(counts: np.ndarray) -> str:
    """How many regions and samples a part shows."""
    return f"{number_of(len(counts), 'region')}, {number_of(int(counts.sum()), 'sample')}"


def _parts(centres: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Group regions that lie together: at most as many groups as ``PARTS``, the fullest first.

    The region with most samples is the middle of a group.
    """
    left = np.ones(len(centres), bool)
    parts: list[list[int]] = []
    while left.any() and len(parts) < len(PARTS):
        middle = int(np.where(left, counts, -1).argmax())
        near = left & (np.abs(centres - centres[middle]).max(1) <= PART_REACH)
        parts.append(np.flatnonzero(near).tolist())
        left &= ~near
    return parts


def _draw_world(axis: Axes, centres: np.ndarray, counts: np.ndarray) -> None:
    """Draw the whole world with a square for each region, larger for more samples."""
    _draw_land(axis)
    axis.scatter(
        centres[:, 0],
        centres[:, 1],
        s=10 + 40 * np.sqrt(counts / counts.max()),
        marker="s",
        color=REGION,
        alpha=0.75,
        linewidths=0,
    )
    axis.set(
        xlim=(-180, 180),
        ylim=(-85, 85),
        xticks=range(-180, 181, 30),
        yticks=range(-60, 61, 30),
        aspect="equal",
        title=_summary(counts),
    )
    _name_axes(axis)


def _draw_part(axis: Axes, cells: Sequence[int], counts: np.ndarray, points: np.ndarray) -> Box:
    """Draw some regions enlarged and return the part of the world that is shown."""
    boxes = [cell_box(cell) for cell in cells]
    _draw_land(axis)
    for count, box in zip(counts, boxes):
        _draw_region(axis, box)
        if len(cells) <= NUMBERED:
            _number(axis, box, count)
    axis.plot(points[:, 0], points[:, 1], ".", color=SAMPLE, markersize=3, zorder=5)
    west, south = np.array(boxes)[:, :2].min(0)
    east, north = np.array(boxes)[:, 2:].max(0)
    middle = (south + north) / 2
    shrink = math.cos(math.radians(middle))  # length of a degree of longitude to one of latitude
    half = 1.1 * max((east - west) / 2 * shrink, (north - south) / 2, LEAST_HALF_HEIGHT)
    centre = (west + east) / 2
    shown = Box(centre - half / shrink, middle - half, centre + half / shrink, middle + half)
    axis.set(xlim=(shown.west, shown.east), ylim=(shown.south, shown.north), aspect=1 / shrink)
    _name_axes(axis)
    return shown


def _draw_land(axis: Axes) -> None:
    """Draw the countries under everything else."""
    axis.add_collection(PolyCollection(countries(), zorder=0.5, **LAND))


def _draw_region(axis: Axes, box: Box) -> None:
    """Draw the square of a region."""
    axis.add_patch(
        Rectangle(
            (box.west, box.south),
            box.east - box.west,
            box.north - box.south,
            facecolor=REGION_FILL,
            edgecolor=REGION,
        )
    )


def _number(axis: Axes, box: Box, count: int) -> None:
    """Write a region's number of samples in its upper left corner."""
    axis.annotate(
        str(count),
        (box.west, box.north),
        (2, -2),
        textcoords="offset points",
        va="top",
        fontsize=7.5,
        bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0},
    )


def _mark(world: Axes, letter: str, box: Box) -> None:
    """Show on the map of the world where an enlarged part lies."""
    width = box.east - box.west
    height = box.north - box.south
    world.add_patch(Rectangle((box.west, box.south), width, height, fill=False, edgecolor=PLAIN))
    world.annotate(
        letter,
        (box.east, box.north),
        (3, -3),
        textcoords="offset points",
        fontsize=10,
        weight="bold",
    )


def _name_axes(axis: Axes) -> None:
    axis.set(xlabel="longitude, degrees", ylabel="latitude, degrees")
