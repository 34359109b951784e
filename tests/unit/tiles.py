"""Small tiles of random numbers for the tests of the data stream: every modality, cloud masks,
labels."""

import numpy as np

from data.storage.settings import StoreSettings
from data.stream.settings import DataSettings, ViewSettings
from data.tiles.tile import UNLABELLED, Tile

SIDES = {"hr": 128, "ms": 4, "sar": 4}  # pixels of 4 cells along a side of a view
SETTINGS = DataSettings(
    shards="unused",
    workers=0,
    prefetch=1,
    frames={"hr": 1, "ms": 3, "sar": 2},
    views=ViewSettings(global_pixels=SIDES, local_pixels=SIDES, local_views=2),
    store=StoreSettings(attempts=1),
)


def make_tile(
    key: str,
    seed: int = 0,
    cells: int = 6,
    modalities: tuple = ("hr", "ms", "sar"),
    labels: bool = True,
    clouds: float = 0.2,
) -> Tile:
    """A tile with 5 ms and 4 sar frames; a share ``clouds`` of the pixels is invalid."""
    rng = np.random.default_rng([seed, cells])
    frames = {"hr": 1, "ms": 5, "sar": 4}
    arrays = {
        "hr": rng.integers(0, 256, (3, 32 * cells, 32 * cells), dtype=np.uint8),
        "ms": rng.integers(1, 9000, (5, 10, cells, cells), dtype=np.uint16),
        "sar": rng.normal(-12, 5, (4, 2, cells, cells)).astype(np.float32),
    }
    arrays = {name: arrays[name] for name in modalities}
    if labels:
        arrays["labels"] = rng.choice(
            np.array([0, 3, 7, UNLABELLED], np.uint8), (8 * cells, 8 * cells)
        )
    valid = {name: rng.random((frames[name], cells, cells)) >= clouds for name in modalities}
    if "sar" in modalities:
        arrays["sar"][~np.repeat(valid["sar"][:, None], 2, 1)] = np.nan
    dates = {
        name: [f"2019-{2 * i + 1:02d}-{10 + i}" for i in range(frames[name])] for name in modalities
    }
    return Tile(
        key,
        cells,
        "EPSG:32631",
        (10.0, 0.0, 5e5, 0.0, -10.0, 5.6e6),
        3.0 + seed,
        50.5,
        arrays,
        valid,
        dates,
        source=f"{key}.tif",
        licence="CC-BY-4.0" if seed % 2 else "CC0",
        attribution="made for a test",
    )
