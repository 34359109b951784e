"""Views of a tile for the tests of the losses: affines with flips and quarter turns, random maps
with holes."""

import numpy as np
import torch


def place(x0, y0, width, height, flip=False, turns=0):
    """2 x 3 float64: (u, v, 1) of the shown view -> (x, y) of the tile. Turned counter-clockwise,
    mirrored before."""

    def ground(u, v):
        for _ in range(turns):
            u, v = 1 - v, u  # what is shown at (u, v) after a quarter turn stood at (1 - v, u)
        return np.array([x0 + width * (1 - u if flip else u), y0 + height * v])

    origin = ground(0.0, 0.0)
    return torch.tensor(
        np.stack([ground(1.0, 0.0) - origin, ground(0.0, 1.0) - origin, origin], axis=1)
    )


def random_affines(batch, views, low, high, cells=20, seed=0):
    """(B, V, 2, 3): rectangles of low..high cells a side, any orientation."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(batch * views):
        w, h = rng.integers(low, high + 1, 2)
        x0, y0 = rng.integers(cells - w + 1), rng.integers(cells - h + 1)
        made.append(place(x0, y0, w, h, bool(rng.integers(2)), int(rng.integers(4))))
    return torch.stack(made).view(batch, views, 2, 3)


def random_maps(batch, views, frames, side, width, seed=0, holes=0.2):
    """Maps (B, V, T, h, w, D) and validity (B, V, T, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, views, frames, side, side, width, generator=generator)
    return maps, torch.rand(maps.shape[:-1], generator=generator) >= holes
