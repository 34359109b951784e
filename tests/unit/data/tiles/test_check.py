"""What a tile must be; the archive and the shards both ask."""

import re

import numpy as np
import pytest

from data.errors import InputError
from data.tiles.check import check_tile
from tests.unit.tiles import make_tile


def test_a_good_tile_passes():
    check_tile(make_tile("a"))
    check_tile(make_tile("b", modalities=("sar",), labels=False))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda tile: setattr(tile, "key", "a.b"), "tile key 'a.b': expected letters"),
        (
            lambda tile: tile.arrays.update(lidar=np.zeros(3)),
            "lidar is float64 (3,), expected no such array",
        ),
        (
            lambda tile: tile.arrays.update(labels=np.zeros((8, 8), np.uint8)),
            "labels is uint8 (8, 8), expected uint8 (48, 48)",
        ),
        (
            lambda tile: tile.arrays.update(ms=np.zeros((5, 9, 6, 6), np.uint16)),
            "ms is uint16 (5, 9, 6, 6), expected uint16 (5, 10, 6, 6)",
        ),
        (
            lambda tile: tile.valid.pop("sar"),
            "valid['sar'] is missing, expected bool (4, 6, 6)",
        ),
        (
            lambda tile: tile.valid.update(hr=np.ones((1, 5, 6), bool)),
            "valid['hr'] is bool (1, 5, 6), expected bool (1, 6, 6)",
        ),
    ],
)
def test_what_is_wrong_is_named(spoil, message):
    tile = make_tile("a")
    spoil(tile)
    with pytest.raises(InputError, match=re.escape(message)):
        check_tile(tile)
