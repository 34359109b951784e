"""How far a view of a whole tile shrinks the ground, and which tiles are too large for that.

A global view shows up to a whole tile on a fixed number of cells. Fields, roads and houses that are
several pixels wide in the tile are less than one in such a view.
"""

from collections.abc import Mapping

MOST_SHRINK = 2  # cells of the tile along a cell of the view
BEST_SHRINK = 1.5


def too_large(cells: Mapping[int, int], global_cells: int) -> int:
    """How many tiles a global view shrinks by more than ``MOST_SHRINK``.

    Args:
        cells: side of a tile -> number of tiles.
        global_cells: side of a global view.
    """
    return sum(count for side, count in cells.items() if side > MOST_SHRINK * global_cells)


def shrink_advice(cells: Mapping[int, int], global_cells: int) -> str | None:
    """One line about tiles that are too large, with numbers and advice; None when none is.

    Args:
        cells: side of a tile -> number of tiles.
        global_cells: side of a global view.
    """
    count = too_large(cells, global_cells)
    if not count:
        return None
    largest = max(cells)
    most = MOST_SHRINK * global_cells
    return (
        f"{count} of {sum(cells.values())} tiles are larger than {most} cells of 10 m along a "
        f"side, up to {largest}: a global view of {global_cells} cells shows such a tile whole and "
        f"shrinks the ground by up to {largest / global_cells:.3g}; cut tiles of "
        f"{best_cells(global_cells)} to {most} cells, or train with larger views "
        f"(data.views.global_cells)"
    )


def best_cells(global_cells: int) -> int:
    """The side of a tile of which views of every share of its area keep their details."""
    return round(BEST_SHRINK * global_cells)
