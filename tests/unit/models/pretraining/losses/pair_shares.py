"""Shares of the kinds of pairs in the pixel loss: ``python -m`` this module prints a table.

The views are drawn as in training. By cells, each matched cell counts the same; by pair, as
equation 2 reads, each pair of views does.
"""

import numpy as np
import torch

from data.stream.settings import GLOBAL, ViewSettings
from data.stream.views import affine, draw_views
from models.count.cost import map_sides
from models.pretraining.losses.correspondence import match
from models.pretraining.losses.multi_granularity import partner_views
from models.spec import ModelSpec

SAMPLES = 200
TILE = 64  # cells of 10 m


def grids_of(name: str) -> list[int]:
    """Cells along a side of the last map of a feature of the paper's model, by view size."""
    sizes = ViewSettings().sizes.values()
    return [map_sides(ModelSpec(), size.pixels)[name] for size in sizes]


def matched_cells(grids: list[int], seed: int) -> dict[str, torch.Tensor]:
    """Matched cells of each pair of views of one sample: view size -> (Vs, Vt), 0 for no pair."""
    views = draw_views(np.random.default_rng(seed), TILE, ViewSettings())
    places = {}
    for size, group in views.items():
        places[size] = torch.from_numpy(np.stack([affine(view) for view in group]))[None]
    counts = {}
    for (size, affines), grid in zip(places.items(), grids):
        inside = match(affines, places[GLOBAL], (grid, grid)).inside[0]  # Vs Vt h w
        pairs = partner_views(*inside.shape[:2], same=size == GLOBAL)
        counts[size] = inside.sum(dim=(2, 3)) * pairs
    return counts


def global_shares(name: str) -> tuple[float, float, float]:
    """What pairs of global views hold of all cells and of all pairs, and the share of all pairs
    that are matched in less than a quarter of the student's cells."""
    by_size = {}
    grids = grids_of(name)
    for seed in range(SAMPLES):
        for size, counts in matched_cells(grids, seed).items():
            by_size.setdefault(size, []).append(counts[counts > 0])
    cells = {size: torch.cat(counts) for size, counts in by_size.items()}
    total_cells = sum(int(counts.sum()) for counts in cells.values())
    total_pairs = sum(len(counts) for counts in cells.values())
    few = 0
    for counts, grid in zip(cells.values(), grids):
        few += int((counts < grid**2 / 4).sum())
    return (
        int(cells[GLOBAL].sum()) / total_cells,
        len(cells[GLOBAL]) / total_pairs,
        few / total_pairs,
    )


if __name__ == "__main__":
    print("feature  cells   global pairs, by cells  by pair  matched in less than a quarter")
    for name in ("hr", "ms", "fused"):
        by_cells, by_pair, few = global_shares(name)
        print(f"{name:8} {grids_of(name)!s:8} {by_cells:22.1%} {by_pair:8.1%} {few:10.1%}")
