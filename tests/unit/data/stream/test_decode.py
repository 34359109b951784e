"""Decoded members must have the bands and sides that the sensor and the sample's cells say."""

import numpy as np
import pytest
import torch
from torchvision.io import encode_png

from data.errors import InputError
from data.shards.records import IndexEntry, Member
from data.shards.stacks import encode_masks, encode_series
from data.stream.decode import Raw, unpack

CELLS = 3
FRAMES = {"hr": np.array([0]), "ms": np.array([0, 1])}


def png(*shape: int) -> bytes:
    """An image of zeros, bands x rows x columns."""
    return encode_png(torch.zeros(shape, dtype=torch.uint8)).numpy().tobytes()


def raw(
    *, bands: int = 10, side: int = CELLS, masks: int = 2, hr: int = 96, labels: int = 24
) -> Raw:
    """What is read of a sample with two frames of ms; the arguments are the sides and counts."""
    valid = np.ones((2, side, side), bool)
    series = np.zeros((2, bands, side, side), np.uint16)
    series_data, series_layout = encode_series(series, valid, "ms")
    mask_data, mask_layout = encode_masks(np.ones((masks, CELLS, CELLS), bool))
    hr_data, hr_layout = encode_masks(np.ones((1, CELLS, CELLS), bool))
    data = {
        ("hr", None): png(3, hr, hr),
        ("hr_valid", None): hr_data,
        ("ms_valid", None): mask_data,
        ("labels", None): png(1, labels, labels),
    }
    for frame, (offset, size, _) in enumerate(series_layout.frames):
        data["ms", frame] = series_data[offset : offset + size]
    place = {"name": "unused", "size": 0, "crc32c": 0, "offset": 0}
    entry = IndexEntry(
        key="tile",
        cells=CELLS,
        lon=0.0,
        lat=0.0,
        modalities=["hr", "ms"],
        dates={"hr": ["2019-01-01"], "ms": ["2019-02-01", "2019-03-01"]},
        usable={"hr": [0], "ms": [0, 1]},
        members={
            "ms": Member(**place, **series_layout.model_dump()),
            "ms_valid": Member(**place, **mask_layout.model_dump()),
            "hr_valid": Member(**place, **hr_layout.model_dump()),
        },
        block=(0, 0),
    )
    return Raw(entry, FRAMES, level=0, data=data)


def test_the_right_shapes_are_decoded():
    tile = unpack(raw())
    assert tile.images("hr").shape == (1, 3, 96, 96) and tile.images("ms").shape == (2, 10, 3, 3)
    assert tile.labels.shape == (24, 24) and tile.valid["ms"].shape == (2, 3, 3)


@pytest.mark.parametrize(
    "wrong,line",
    [
        (
            {"bands": 4},
            "field 'ms': expected frames x bands x rows x columns of 2 x 10 x 3 x 3, "
            "found 2 x 4 x 3 x 3",
        ),
        ({"side": 5}, "of 2 x 10 x 3 x 3, found 2 x 10 x 5 x 5"),
        (
            {"masks": 1},
            "'ms_valid': expected frames x rows x columns of 2 x 3 x 3, found 1 x 3 x 3",
        ),
        ({"hr": 64}, "'hr': expected bands x rows x columns of 3 x 96 x 96, found 3 x 64 x 64"),
        ({"labels": 8}, "'labels': expected rows x columns of 24 x 24, found 8 x 8"),
    ],
)
def test_other_bands_and_sides_are_refused_in_one_line(wrong, line):
    with pytest.raises(InputError) as error:
        unpack(raw(**wrong))
    assert line in str(error.value) and "sample 'tile'" in str(error.value)
    assert "\n" not in str(error.value)
