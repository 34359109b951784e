"""The split by place: shares, agreement of scenes, and no ground in both parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS

from data.prepare.place.grid import Grid, grid_at
from data.scenes.blocks import SplitRule, _bounds_in_degrees

RULE = SplitRule(block_km=20.0, validation=0.3, seed=0)


def split_of(rule: SplitRule, grid: Grid) -> str | None:
    return rule.splits_of([grid])[0]


def blocks_at(rule: SplitRule, lon: np.ndarray, lat: np.ndarray) -> set[tuple[int, int]]:
    """Blocks of points, by the net's definition written out again."""
    bands = round(20_004 / rule.block_km)
    blocks = set()
    for x, y in zip(lon, lat):
        band = min(int((y + 90) / 180 * bands), bands - 1)
        middle = np.radians((band + 0.5) / bands * 180 - 90)
        columns = max(1, round(2 * bands * np.cos(middle)))
        blocks.add((band, int((x % 360) / 360 * columns) % columns))
    return blocks


@settings(max_examples=150, deadline=None)
@given(
    lon=st.floats(-180, 180), lat=st.floats(-89.99, 89.99), cells=st.sampled_from([16, 128, 1000])
)
def test_all_blocks_under_a_tile_count(lon, lat, cells):
    """Every point of the tile lies on one of its blocks, over 180 and around the poles too."""
    grid = grid_at(lon, lat, cells=cells)
    ramp = np.linspace(0, cells * 10, 12)
    x, y = np.meshgrid(grid.x0 + ramp, grid.y0 - ramp)
    back = Transformer.from_crs(grid.crs.to_wkt(), "OGC:CRS84", always_xy=True)
    under = blocks_at(RULE, *back.transform(x.ravel(), y.ravel()))
    assert under <= set(RULE._blocks(_bounds_in_degrees([grid])[0].tolist()))


def test_the_share_of_validation_is_that_of_the_rule():
    generator = np.random.default_rng(0)
    lon, lat = generator.uniform(6.5, 11.5, 2000), generator.uniform(0.1, 70, 2000)
    splits = [split_of(RULE, grid_at(x, y, cells=32)) for x, y in zip(lon, lat)]
    kept = [split for split in splits if split is not None]
    assert 0.95 < len(kept) / 2000 < 1
    assert abs(kept.count("validation") / len(kept) - 0.3) < 0.04


def test_scenes_of_other_zones_agree_on_a_place():
    """Tiles of two UTM zones over one place have one split, wherever both are inside a block."""
    to_31 = Transformer.from_crs(4326, 32631, always_xy=True)
    to_32 = Transformer.from_crs(4326, 32632, always_xy=True)
    agreed = 0
    for lat in np.linspace(40, 60, 400):
        grids = []
        for crs, project in ((32631, to_31), (32632, to_32)):
            x, y = project.transform(6.0, lat)
            grids.append(Grid(CRS.from_epsg(crs), x - 320, y + 320, 64))
        first, second = (split_of(RULE, grid) for grid in grids)
        assert first == second or None in (first, second)
        agreed += first == second is not None
    assert agreed > 350


@pytest.mark.parametrize("validation, expected", [(0.0, {"train"}), (1.0, {"validation"})])
def test_shares_of_nothing_and_of_all(validation, expected):
    rule = SplitRule(20.0, validation, 0)
    assert {split_of(rule, grid_at(10, lat, cells=64)) for lat in range(-80, 80, 5)} == expected


def test_another_seed_gives_other_blocks():
    grids = [grid_at(10, lat, cells=64) for lat in np.linspace(-60, 60, 200)]
    other = SplitRule(20.0, 0.3, 1)
    assert [split_of(RULE, grid) for grid in grids] != [split_of(other, grid) for grid in grids]


def test_many_tiles_at_once_are_as_one_by_one():
    grids = [Grid(CRS.from_epsg(32631), 500_000 + 640 * i, 5_600_000, 64) for i in range(200)]
    assert RULE.splits_of(grids) == [split_of(RULE, grid) for grid in grids]
    assert RULE.splits_of([]) == []
