"""How far a view of a whole tile shrinks the ground, and which tiles are too large for that.

A global view shows up to a whole tile with a fixed number of pixels. Fields, roads and houses that
are several pixels wide in the tile are less than one in such a view.
"""

from collections.abc import Mapping

MOST_SHRINK = 2  # pixels of the tile along a pixel of the view
BEST_SHRINK = 1.5


def too_large(cells: Mapping[int, int], native_cells: int) -> int:
    """How many tiles a global view shrinks by more than ``MOST_SHRINK``.

    Args:
        cells: side of a tile -> number of tiles.
        native_cells: side of a tile that a global view shows pixel by pixel.
    """
    return sum(count for side, count in cells.items() if side > MOST_SHRINK * native_cells)


def shrink_advice(cells: Mapping[int, int], native_cells: int) -> str | None:
    """One line about tiles that are too large, with numbers and advice; None when none is.

    Args:
        cells: side of a tile -> number of tiles.
        native_cells: side of a tile that a global view shows pixel by pixel.
    """
    count = too_large(cells, native_cells)
    if not count:
        return None
    largest = max(cells)
    most = MOST_SHRINK * native_cells
    return (
        f"{count} of {sum(cells.values())} tiles are larger than {most} cells of 10 m along a "
        f"side, up to {largest}: a global view has pixels for {native_cells} cells, shows such a "
        f"tile whole and shrinks the ground by up to {largest / native_cells:.3g}; cut tiles of "
        f"{best_cells(native_cells)} to {most} cells, or train with larger views "
        f"(data.views.global_pixels)"
    )


def best_cells(native_cells: int) -> int:
    """The side of a tile of which views of every share of its area keep their details."""
    return round(BEST_SHRINK * native_cells)
