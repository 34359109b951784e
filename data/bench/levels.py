"""Which levels of an image pyramid the views of a sample want, and how many tiles they touch."""

import numpy as np

from data.bench.images import LEVELS, box, level_of, touched
from data.stream.settings import ViewSettings
from data.stream.views import View, draw_views
from data.tiles.modalities import HR_PIXELS

TILES = (256, 512)  # pixels a side of the squares whose use is counted


def draw_sample_views(rng: np.random.Generator, cells: int) -> list[tuple[View, int]]:
    """Draw all views of one sample at the default settings.

    Returns:
        Each view with the pixels a side of its output.
    """
    settings = ViewSettings()
    sides = {name: size.pixels["hr"] for name, size in settings.sizes.items()}
    views = []
    for name, group in draw_views(rng, cells, settings).items():
        for view in group:
            views.append((view, sides[name]))
    return views


def level_use(rng: np.random.Generator, cells: int, samples: int = 2000) -> list[dict]:
    """How much of each level of the pyramid is used, in per cent of ``samples`` drawn samples.

    Returns:
        A record for each level, and one for an image without a pyramid. ``wanted``: samples in
        which some view wants the level. ``finest``: samples in which it is the finest that any
        view wants. ``tiles``: tile size to the mean share of tiles that the views touch.
    """
    samples_views = [draw_sample_views(rng, cells) for _ in range(samples)]
    finest = []
    for views in samples_views:
        finest.append(min(level_of(view, out) for view, out in views))
    records = []
    for level in range(LEVELS):
        boxes = _boxes_of_level(samples_views, level)
        side = HR_PIXELS * cells >> level
        records.append(
            {
                "level": str(level),
                "pixels": side,
                "wanted": 100 * len(boxes) / samples,
                "finest": 100 * finest.count(level) / samples,
                "tiles": _touched_shares(boxes, side),
            }
        )
    full_size = []
    for views in samples_views:
        full_size.append([box(view, 0) for view, _ in views])
    side = HR_PIXELS * cells
    records.append(
        {
            "level": "no pyramid",
            "pixels": side,
            "wanted": 100.0,
            "finest": 100.0,
            "tiles": _touched_shares(full_size, side),
        }
    )
    return records


def _boxes_of_level(samples_views: list, level: int) -> list[list[tuple]]:
    """The boxes of the views that want ``level``, for each sample that has such views."""
    samples_boxes = []
    for views in samples_views:
        boxes = [box(view, level) for view, out in views if level_of(view, out) == level]
        if boxes:
            samples_boxes.append(boxes)
    return samples_boxes


def _touched_shares(samples_boxes: list[list[tuple]], side: int) -> dict[str, float]:
    """Tile size -> mean share, in per cent, of the tiles of ``side`` pixels that boxes touch."""
    shares: dict[str, float] = {}
    if not samples_boxes:
        return shares
    for tile in TILES:
        tiles_along_side = -(-side // tile)
        counts = [len(touched(boxes, tile)) for boxes in samples_boxes]
        shares[str(tile)] = 100 * float(np.mean(counts)) / tiles_along_side**2
    return shares


def levels_table(records: list[dict]) -> str:
    """The records of ``level_use`` as a table."""
    titles = "".join(f"{f'tiles {tile} %':>14}" for tile in TILES)
    lines = [f"{'level':12}{'pixels':>8}{'wanted %':>10}{'finest %':>10}{titles}"]
    for record in records:
        shares = ""
        for tile in TILES:
            shares += f"{record['tiles'].get(str(tile), float('nan')):14.1f}"
        lines.append(
            f"{record['level']:12}{record['pixels']:8}{record['wanted']:10.1f}"
            f"{record['finest']:10.1f}{shares}"
        )
    return "\n".join(lines)
