"""The map of a dataset: where its regions and samples lie. Without a base map, so without a network."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data.regions import CELL, COLUMNS, ROWS, WEST, RegionTable, cell_centre
from engine.figures import WIDTH

PANELS, WINDOW = 3, 8.0  # enlarged parts, and half their greatest size in degrees


def region_map(regions: RegionTable, counts: Sequence[int], places: np.ndarray) -> Figure:
    """The world with the occupied regions, and up to three parts of it enlarged.

    ``counts``: samples of each region; ``places`` (n, 2): lon and lat of samples in degrees."""
    centres = np.array([cell_centre(cell) for cell in regions.cells])  # R 2
    windows = _windows(centres, np.array(counts))
    heights = (3.7, 4.0)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    world = top.subplots()
    world.scatter(*centres.T, s=10 + 40 * np.sqrt(np.array(counts) / max(counts)), marker="s", color="#d1495b",
                  alpha=0.75, linewidths=0)
    world.set(xlim=(-180, 180), ylim=(-90, 90), xticks=range(-180, 181, 30), yticks=range(-90, 91, 30), aspect="equal",
              xlabel="longitude", ylabel="latitude", title=f"occupied regions: {len(regions)}, samples: {sum(counts)}")
    for axis, (letter, members) in zip(np.atleast_1d(bottom.subplots(1, len(windows))), zip("ABC", windows)):
        box = _zoom(axis, regions, counts, places, members)
        axis.set_title(f"{letter}: regions {len(members)}, samples {sum(counts[i] for i in members)}")
        world.add_patch(Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, edgecolor="#37474f"))
        world.annotate(letter, (box[2], box[3]), (3, 0), textcoords="offset points", fontsize=10, weight="bold")
    return figure


def _windows(centres: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Regions that lie together, the fullest windows first."""
    near = np.abs(centres[:, None] - centres[None]).max(-1) <= WINDOW  # R R
    left, found = np.ones(len(centres), bool), []
    while left.any() and len(found) < PANELS:
        middle = int(((near & left) * counts).sum(1).argmax())
        found.append(np.flatnonzero(near[middle] & left).tolist())
        left &= ~near[middle]
    return found


def _zoom(axis: Axes, regions: RegionTable, counts: Sequence[int], places: np.ndarray, members: list[int]
          ) -> tuple[float, float, float, float]:
    """Outlines of some regions, their number of samples, and the samples as dots; returns the part of the world."""
    boxes = np.array([cell_box(regions.cells[i]) for i in members])  # n 4
    west, south, east, north = *boxes[:, :2].min(0), *boxes[:, 2:].max(0)
    for i, box in zip(members, boxes):
        axis.add_patch(Rectangle(box[:2], *(box[2:] - box[:2]), facecolor="#f6d9dc", edgecolor="#d1495b"))
        if len(members) <= 80:
            axis.annotate(str(counts[i]), (box[0], box[3]), (2, -2), textcoords="offset points", va="top", fontsize=7.5,
                          weight="bold", bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0})
    axis.plot(*places.T, ".", color="#233d4d", markersize=3.5, zorder=5)
    middle, across = (south + north) / 2, math.cos(math.radians((south + north) / 2))
    half = 1.1 * max((east - west) / 2 * across, (north - south) / 2, 0.8)  # degrees of latitude
    axis.set(xlim=((west + east) / 2 - half / across, (west + east) / 2 + half / across),
             ylim=(middle - half, middle + half), aspect=1 / across, xlabel="longitude", ylabel="latitude")
    return (*(axis.get_xlim()[0], axis.get_ylim()[0]), *(axis.get_xlim()[1], axis.get_ylim()[1]))


def cell_box(cell: int) -> tuple[float, float, float, float]:
    """West, south, east, north of a grid cell in degrees.

    Longitudes are exact; latitudes lie half way between the centres of neighbours, off by less than a kilometre up to
    80 degrees."""
    row, column = divmod(cell, COLUMNS)
    width = 180 * CELL / -WEST  # degrees: the projection is cylindrical
    lats = [cell_centre(other * COLUMNS)[1] for other in (max(row - 1, 0), row, min(row + 1, ROWS - 1))]
    south, north = (lats[1] + lats[2]) / 2, (lats[1] + lats[0]) / 2
    return column * width - 180, max(south, -90.0), (column + 1) * width - 180, min(north, 90.0)
