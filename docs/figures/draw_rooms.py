"""Draw docs/figures/rooms.svg and write the table of docs/architecture.md, both from the table in
tests/unit/test_rooms.py.

    PYTHONPATH=. python docs/figures/draw_rooms.py

Each box is a room with the first sentence of its docstring. A room imports only rooms that lie
below it; the lines show which ones, without those that a lower line implies.
"""

import ast
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from tests.paths import ROOT
from tests.unit.test_rooms import PAGE, ROOMS, page_table, page_with

TOPS = ("data", "models", "engine")
COLOURS = {"data": "#e3f0e4", "models": "#e2ecf7", "engine": "#fbeedd"}
EDGES = {"data": "#4c8a52", "models": "#3b6ea5", "engine": "#b5762a"}
WIDTH = 3.6
HEIGHT = 1.0
GAP_X = 0.3
GAP_Y = 0.75
COLUMNS = 3  # boxes side by side in one top folder


def rooms_of(top: str) -> dict[str, list[str]]:
    """The rooms of a top folder and what each imports inside it, folders only."""
    rooms = {}
    for room, imports in ROOMS.items():
        is_folder = (ROOT / room).is_dir()
        if room.startswith(f"{top}/") and is_folder:
            rooms[room] = [other for other in imports.split() if (ROOT / other).is_dir()]
    return rooms


def floors(rooms: dict[str, list[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest room that it imports."""
    floor: dict[str, int] = {}
    for room, imports in rooms.items():
        below = [floor[other] for other in imports if other in floor]
        floor[room] = max(below, default=-1) + 1
    return floor


def direct(rooms: dict[str, list[str]], room: str) -> list[str]:
    """The imports of a room that no other of its imports has already."""
    implied: set[str] = set()
    for other in rooms[room]:
        implied |= reachable(rooms, other)
    return [other for other in rooms[room] if other in rooms and other not in implied]


def reachable(rooms: dict[str, list[str]], room: str) -> set[str]:
    """All rooms that a room imports, also through others."""
    found: set[str] = set()
    for other in rooms.get(room, []):
        found |= {other} | reachable(rooms, other)
    return found


def summary(room: str) -> str:
    """First sentence of the package's docstring."""
    text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    return text.split("\n\n")[0].split(". ")[0].replace("\n", " ").replace("``", "").rstrip(".")


def place(rooms: dict[str, list[str]]) -> dict[str, tuple[float, float]]:
    """Lower left corner of each box; floors with more than COLUMNS rooms take several rows."""
    by_floor: dict[int, list[str]] = {}
    for room, floor in floors(rooms).items():
        by_floor.setdefault(floor, []).append(room)
    corners = {}
    row = 0
    for floor in sorted(by_floor):
        here = by_floor[floor]
        for start in range(0, len(here), COLUMNS):
            line = here[start : start + COLUMNS]
            indent = (COLUMNS - len(line)) * (WIDTH + GAP_X) / 2
            for column, room in enumerate(line):
                corners[room] = (indent + column * (WIDTH + GAP_X), row * (HEIGHT + GAP_Y))
            row += 1
    return corners


def draw_top(axes: plt.Axes, top: str) -> None:
    """One top folder: boxes on floors, lines downward."""
    rooms = rooms_of(top)
    corners = place(rooms)
    for room in rooms:
        x, y = corners[room]
        for other in direct(rooms, room):
            other_x, other_y = corners[other]
            axes.plot(
                [x + WIDTH / 2, other_x + WIDTH / 2],
                [y, other_y + HEIGHT],
                color=EDGES[top],
                linewidth=0.8,
                alpha=0.6,
                zorder=1,
            )
    for room, (x, y) in corners.items():
        box = FancyBboxPatch(
            (x, y),
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0.02",
            facecolor=COLOURS[top],
            edgecolor=EDGES[top],
            zorder=2,
        )
        axes.add_patch(box)
        name = room.split("/", 1)[1]
        lines = textwrap.wrap(summary(room), 35)[:3]
        axes.text(x + 0.1, y + HEIGHT - 0.12, name, fontsize=9, weight="bold", va="top", zorder=3)
        axes.text(x + 0.1, y + HEIGHT - 0.38, "\n".join(lines), fontsize=6.2, va="top", zorder=3)
    axes.set_title(f"{top}/", fontsize=14, loc="left", color=EDGES[top], weight="bold")
    axes.set_xlim(-0.2, COLUMNS * (WIDTH + GAP_X))
    axes.set_ylim(-0.3, max(y for _, y in corners.values()) + HEIGHT + 0.2)
    axes.axis("off")


def main() -> None:
    """Write the picture beside this file, and the table into the page."""
    PAGE.write_text(page_with(page_table()))
    heights = [len({y for _, y in place(rooms_of(top)).values()}) for top in TOPS]
    figure, axes = plt.subplots(1, len(TOPS), figsize=(25, 1.35 * max(heights)))
    for axis, top in zip(axes, TOPS):
        draw_top(axis, top)
    plt.rcParams["svg.hashsalt"] = "rooms"
    plt.rcParams["svg.fonttype"] = "none"
    path = Path(__file__).with_name("rooms.svg")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
