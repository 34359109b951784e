"""Shares of the kinds of pairs in the pixel loss: ``python -m`` this module prints a table.

The views are drawn as in training. By cells, each matched cell counts the same; by pair, as
equation 2 reads, each pair of views does.
"""

import numpy as np
import torch

from data.stream.settings import GLOBAL, ViewSettings
from data.stream.views import affine, draw_views
from models.pretraining.losses.correspondence import match
from models.pretraining.losses.multi_granularity import partner_views

SAMPLES = 200
TILE = 64  # cells of 10 m
# Cells along a side of the last map, by view size: 512 and 128 pixels of "hr", the fused map, "ms".
GRIDS = {"hr": (16, 4), "fused": (8, 2), "ms": (4, 1)}


def matched_cells(grids: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
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
    for seed in range(SAMPLES):
        for size, counts in matched_cells(GRIDS[name], seed).items():
            by_size.setdefault(size, []).append(counts[counts > 0])
    cells = {size: torch.cat(counts) for size, counts in by_size.items()}
    total_cells = sum(int(counts.sum()) for counts in cells.values())
    total_pairs = sum(len(counts) for counts in cells.values())
    few = 0
    for counts, grid in zip(cells.values(), GRIDS[name]):
        few += int((counts < grid**2 / 4).sum())
    return (
        int(cells[GLOBAL].sum()) / total_cells,
        len(cells[GLOBAL]) / total_pairs,
        few / total_pairs,
    )


if __name__ == "__main__":
    print("feature  global pairs, by cells  by pair  pairs with a quarter of the cells or less")
    for name in GRIDS:
        by_cells, by_pair, few = global_shares(name)
        print(f"{name:8} {by_cells:22.1%} {by_pair:8.1%} {few:10.1%}")
