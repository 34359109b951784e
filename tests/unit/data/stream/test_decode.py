"""Decoded members must have the bands and sides that the sensor and the sample's cells say."""

import io
import resource

import numpy as np
import pytest
import torch
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from PIL import Image
from torchvision.io import encode_jpeg, encode_png

from data.errors import InputError
from data.shards.records import IndexEntry, Member
from data.shards.stacks import encode_masks, encode_series
from data.stream.decode import Raw, unpack
from data.stream.image_size import image_size

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
            "field 'ms': expected bands x rows x columns of 10 x 3 x 3, found 4 x 3 x 3",
        ),
        ({"side": 5}, "of 10 x 3 x 3, found 10 x 5 x 5"),
        (
            {"masks": 1},
            "'ms_valid': expected frames x rows x columns of 2 x 3 x 3, found 1 x 3 x 3",
        ),
        ({"hr": 64}, "'hr': expected rows x columns of 96 x 96, found 64 x 64"),
        ({"labels": 8}, "'labels': expected rows x columns of 24 x 24, found 8 x 8"),
    ],
)
def test_other_bands_and_sides_are_refused_in_one_line(wrong, line):
    with pytest.raises(InputError) as error:
        unpack(raw(**wrong))
    assert line in str(error.value) and "sample 'tile'" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_picture_of_a_thousand_times_the_pixels_is_refused_before_it_is_decoded():
    bomb = raw()
    bomb.data["labels", None] = png(1, 20_000, 20_000)
    assert len(bomb.data["labels", None]) < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="expected rows x columns of 24 x 24, found 20000 x 20000"):
        unpack(bomb)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 100_000


@pytest.mark.parametrize("quality", [50, 95])
def test_sides_of_a_jpeg_are_read_from_its_header(quality):
    image = torch.zeros(3, 37, 91, dtype=torch.uint8)
    assert image_size(encode_jpeg(image, quality).numpy().tobytes()) == (37, 91)
    progressive = io.BytesIO()
    Image.new("RGB", (91, 37)).save(progressive, "JPEG", progressive=True, exif=b"Exif  text")
    assert image_size(progressive.getvalue()) == (37, 91)


DAMAGE = {
    "a frame of fewer pixels": (
        ("ms", 0),
        Blosc("zstd").encode(np.zeros(10, np.uint16)),
        "'ms': cannot be decoded (expected a frame of 180 bytes",
    ),
    "a frame that is cut short": (("ms", 0), slice(-3), "'ms': cannot be decoded (expected a fr"),
    "masks of fewer pixels": (
        ("ms_valid", None),
        Zstd().encode(np.ones(5, bool)),
        "'ms_valid': cannot be decoded (expected 18 pixels of 0 and 1",
    ),
    "masks of more pixels": (
        ("ms_valid", None),
        Zstd().encode(np.ones(50, bool)),
        "'ms_valid': cannot be decoded (destination buffer too small",
    ),
    "no image": (("hr", None), b"GIF89a", "'hr': cannot be decoded (expected a PNG or a JPEG"),
    "an image that is cut short": (("hr", None), slice(40), "'hr': cannot be decoded"),
}


@pytest.mark.parametrize("want, damage, line", DAMAGE.values(), ids=DAMAGE)
def test_what_a_decoder_refuses_or_would_leave_unwritten_is_a_bad_sample(want, damage, line):
    damaged = raw()
    if isinstance(damage, slice):
        damage = damaged.data[want][: damage.stop]
    damaged.data[want] = damage
    with pytest.raises(InputError) as error:
        unpack(damaged)
    assert line in str(error.value) and "sample 'tile'" in str(error.value)
    assert "\n" not in str(error.value)
