"""Codec candidates: lossless where they say so, views of the right shape near those of the
original; the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.bench.hr_candidates import hr_codecs
from data.bench.images import LEVELS, box, level_of, touched
from data.bench.scene import load_scene, mosaic
from data.bench.stack_candidates import stack_codecs
from data.errors import InputError
from data.stream.views import View, cut_hr
from data.tiles.archive import create_archive, write_tile
from tests.commands import skysense
from tests.unit.tiles import make_tile

CELLS = 32  # of the small tile: 1024 pixels, so that every level is used
VIEWS = [
    (View(0, 0, 32, 32), 128),
    (View(3, 5, 20, 17), 256),
    (View(9, 2, 9, 12), 256),
    (View(20, 21, 5, 6), 128),
]
STACKS = [(member, codec) for member, codecs in stack_codecs().items() for codec in codecs]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A smooth picture with fine texture: 1024 x 1024 x 3."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(30, 220, (64, 64, 3), dtype=np.uint8)).resize(
        (32 * CELLS,) * 2
    )
    return np.clip(np.array(small) + rng.normal(0, 3, (32 * CELLS, 32 * CELLS, 3)), 0, 255).astype(
        np.uint8
    )


def stack(member: str) -> np.ndarray:
    """Frames of a member, with extremes: T ... of the member's type."""
    rng = np.random.default_rng(1)
    if member == "ms":
        frames = rng.normal(2000, 300, (9, 10, 8, 8)).astype(np.uint16)
        frames[0, 0, 0, :4] = 0, 65535, 0, 65535
        return frames
    if member == "sar":
        return np.clip(rng.normal(-12, 5, (9, 2, 8, 8)), -50, 30).astype(np.float32)
    if member == "ms_valid":
        return rng.random((9, 8, 8)) < 0.7
    return rng.choice(np.array([0, 3, 7, 255], np.uint8), (1, 64, 64))


@pytest.mark.parametrize("codec", hr_codecs(), ids=lambda codec: codec.name)
def test_views_of_a_stored_tile_look_like_those_of_the_original(codec, image):
    if not codec.available:
        pytest.skip(f"needs {codec.pip}")
    stored = codec.encode(image)
    views, read = codec.cut(stored, VIEWS, len(image))
    assert 0 < read <= sum(map(len, stored.values()))
    whole, mask = (
        torch.from_numpy(image).permute(2, 0, 1),
        torch.ones(CELLS, CELLS, dtype=torch.bool),
    )
    for found, (view, out) in zip(views, VIEWS):
        expected, _ = cut_hr(whole, mask, view, out)
        assert found.dtype == torch.uint8 and found.shape == expected.shape == (3, out, out)
        error = (found.double() - expected.double()).square().mean().item()
        if codec.lossless:
            assert error == 0
        else:  # an inverted, shifted or swapped picture has less than 20 dB here
            assert 10 * np.log10(255**2 / max(error, 1e-9)) > 28


def test_lossless_candidates_exist_in_every_table():
    assert any(codec.lossless for codec in hr_codecs())
    assert all(any(codec.lossless for codec in codecs) for codecs in stack_codecs().values())


@pytest.mark.parametrize("member, codec", STACKS, ids=lambda value: getattr(value, "name", value))
def test_drawn_frames_come_back(member, codec):
    if not codec.available:
        pytest.skip(f"needs {codec.pip}")
    frames = stack(member)
    chosen = np.array([0, 3, 8]) if len(frames) > 1 else np.array([0])
    blocks = codec.write(frames)
    found, read = codec.read(blocks, chosen, frames.shape, frames.dtype)
    assert found.dtype == frames.dtype and found.shape == frames[chosen].shape
    if codec.lossless:
        np.testing.assert_array_equal(found, frames[chosen])
    else:  # half a step: 0.005 dB, or of float16 between 32 and 64
        assert (
            0
            < np.abs(found - frames[chosen]).max()
            <= (2**-6 + 1e-5 if "float16" in codec.name else 0.005 + 1e-5)
        )
    if codec.group == 1:
        assert read == sum(len(blocks[t]) for t in chosen)


@pytest.mark.parametrize(
    "short, out, level", [(8, 512, 0), (31, 512, 0), (32, 512, 1), (64, 512, 2), (64, 128, 2)]
)
def test_the_level_is_the_coarsest_that_is_not_coarser_than_the_view(short, out, level):
    view = View(0, 0, short, 64)
    x0, y0, x1, y1 = box(view, level_of(view, out))
    assert level_of(view, out) == level
    assert level == 0 or min(x1 - x0, y1 - y0) >= out
    assert level == LEVELS - 1 or min(x1 - x0, y1 - y0) / 2 < out


def test_touched_tiles_are_those_that_share_a_pixel():
    boxes, pixels = [(10, 20, 64, 65), (100, 0, 101, 128)], np.zeros((128, 128), bool)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = True
    expected = {
        (row, column)
        for row in range(4)
        for column in range(4)
        if pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32].any()
    }
    assert touched(boxes, 32) == expected


def test_a_mosaic_shows_every_form_of_every_image_before_one_again():
    images = [
        np.arange(12, dtype=np.uint8).reshape(2, 2, 3) + 20 * n for n in range(2)
    ]  # 16 different squares
    out = mosaic(images, 8, np.random.default_rng(0))
    squares = {out[y : y + 2, x : x + 2].tobytes() for y in range(0, 8, 2) for x in range(0, 8, 2)}
    assert len(squares) == 16
    forms = set()
    for image in images:
        for turns in range(4):
            turned = np.rot90(image, turns)
            forms.add(turned.tobytes())
            forms.add(turned[:, ::-1].tobytes())
    assert squares == forms


def test_a_scene_has_the_sizes_asked_for(tmp_path):
    archive = create_archive(tmp_path / "archive")
    write_tile(archive, make_tile("a", 0, 6))
    scene = load_scene(archive, seed=0, cells=16, frames=(8, 3))
    assert scene.hr.shape == (512, 512, 3) and scene.labels.shape == (128, 128)
    assert scene.ms.shape == (8, 10, 16, 16) and scene.ms_valid.shape == (8, 16, 16)
    assert scene.sar.shape == (3, 2, 16, 16)


def test_an_archive_without_series_is_refused(tmp_path):
    archive = create_archive(tmp_path / "archive")
    write_tile(archive, make_tile("a", modalities=("hr",)))
    with pytest.raises(InputError, match="ms and sar"):
        load_scene(archive, seed=0)


def test_the_command_writes_every_candidate(tmp_path):
    archive = create_archive(tmp_path / "archive")
    write_tile(archive, make_tile("a", clouds=0))
    out = tmp_path / "codecs.json"
    done = skysense(
        "bench", "codecs", archive, "--json", out, "--repeats", 1, "--draws", 1, "--cells", 16
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(out).read_text())
    assert [one["name"] for one in found["hr"]] == [codec.name for codec in hr_codecs()]
    for one in found["hr"] + found["sar"]:
        assert one["name"] in done.stdout
        if "missing" in one:
            assert f"pip install {one['missing']}" in done.stdout
        else:
            assert one["bytes"] >= one["read"] > 0 and one["ms_min"] <= one["ms"] <= one["ms_max"]
    wanted = {one["level"]: one["wanted"] for one in found["levels"]}
    assert wanted["no pyramid"] == 100 and sum(
        one["finest"] for one in found["levels"][:LEVELS]
    ) == pytest.approx(100)
    assert wanted["0"] > 99  # global views of a tile of 512 pixels show 512
    done = skysense("bench", "codecs", archive, "--repeats", 0)
    assert done.returncode == 2 and done.stderr.startswith("error: --repeats")
