"""Batches: fixed shapes, normalised values, masks."""

import numpy as np
import pytest
import torch

from data.stream.augment import Colours
from data.stream.collate import empty_batch, place
from data.stream.cut import cut
from data.stream.decode import Decoded
from data.stream.draw import SampleDraw
from data.stream.frames import ViewFrames
from data.stream.settings import GLOBAL, LOCAL
from data.stream.views import View, affine
from data.tiles.modalities import MODALITIES
from tests.unit.tiles import SETTINGS, make_tile

VIEWS = {
    GLOBAL: [View(1, 0, 4, 4), View(0, 2, 4, 4, flip=True, turns=1)],
    LOCAL: [View(2, 2, 4, 4), View(0, 0, 4, 4, flip=False, turns=3)],
}


def decoded(tile, frames):
    """What decode makes of a tile."""
    chosen = {name: f for name, f in frames.items() if name in tile.arrays}
    return Decoded(
        tile.cells,
        torch.from_numpy(tile.arrays["hr"]) if "hr" in chosen else None,
        torch.from_numpy(tile.arrays["labels"]) if "labels" in tile.arrays else None,
        {
            name: torch.from_numpy(
                np.where(tile.valid[name][f][:, None], tile.arrays[name][f], 0).astype(np.float32)
            )
            for name, f in chosen.items()
            if name != "hr"
        },
        {name: torch.from_numpy(tile.valid[name][f]) for name, f in chosen.items()},
    )


def batch_of(tile, frames):
    batch = empty_batch(3, 2, SETTINGS)
    present = {name: len(f) for name, f in frames.items() if name in tile.arrays}
    days = {name: np.arange(count) + 10 for name, count in present.items()}
    seen = {name: np.arange(count) != 1 for name, count in present.items()}
    draw = SampleDraw(
        sample=0,
        use=0,
        key=tile.key,
        region=5,
        frames=frames,
        dates={},
        views=VIEWS,
        shown={name: [ViewFrames(days, seen)] * len(group) for name, group in VIEWS.items()},
        colours={name: [Colours()] * len(group) for name, group in VIEWS.items()},
        levels={name: [{}] * len(group) for name, group in VIEWS.items()},
        level=0,
    )
    place(batch, 1, cut(draw, decoded(tile, frames), SETTINGS.views))
    return batch


ALL = {"hr": [0], "ms": [0, 2, 3], "sar": [1, 3]}


def test_an_empty_batch_has_all_shapes_and_nothing_valid():
    batch = empty_batch(3, 2, SETTINGS)
    for views in batch.views.values():
        assert {name: tuple(x.shape) for name, x in views.images.items()} == {
            "hr": (2, 2, 1, 3, 128, 128),
            "ms": (2, 2, 3, 10, 4, 4),
            "sar": (2, 2, 2, 2, 4, 4),
        }
        assert {name: tuple(x.shape) for name, x in views.valid.items()} == {
            "hr": (2, 2, 1, 128, 128),
            "ms": (2, 2, 3, 4, 4),
            "sar": (2, 2, 2, 4, 4),
        }
        assert not any(x.any() for x in (*views.images.values(), *views.valid.values()))
        assert views.labels.shape == (2, 2, 32, 32) and (views.labels == -1).all()
        assert views.affine.dtype == torch.float64 and views.labels.dtype == torch.int64
    assert batch.region.tolist() == [-1, -1] and batch.step == 3


def test_values_are_normalised_by_band_and_zero_where_invalid():
    tile = make_tile("t", 3)
    batch = batch_of(tile, ALL)
    for name, frames in ALL.items():
        sensor = MODALITIES[name]
        p = sensor.pixels
        stored = tile.arrays[name][None] if name == "hr" else tile.arrays[name][frames]
        expected = stored.astype(np.float64) / sensor.scale
        expected = (expected - np.array(sensor.mean)[:, None, None]) / np.array(sensor.std)[
            :, None, None
        ]
        mask = np.kron(tile.valid[name][frames], np.ones((1, p, p), bool))
        expected = np.where(mask[:, None], expected, 0)[..., : 4 * p, p : 5 * p]  # View(1, 0, 4, 4)
        found = batch.views[GLOBAL].images[name][1, 0]
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
        shown = batch.views[GLOBAL].valid[name][1, 0].numpy()
        assert (shown == mask[:, : 4 * p, p : 5 * p]).all()


def test_other_slots_stay_empty_and_the_record_is_kept():
    batch = batch_of(make_tile("t", 3), ALL)
    assert batch.keys == ["", "t"] and batch.region.tolist() == [-1, 5]
    for name, views in batch.views.items():
        assert views.days["ms"].tolist() == [[[0, 0, 0]] * 2, [[10, 11, 12]] * 2]
        assert views.days["hr"].tolist() == [[[0]] * 2, [[10]] * 2]
        assert views.seen["ms"].tolist() == [[[False] * 3] * 2, [[True, False, True]] * 2]
        assert all(not x[0].any() for x in (*views.images.values(), *views.valid.values()))
        for v, view in enumerate(VIEWS[name]):
            assert (views.affine[1, v].numpy() == affine(view)).all()


def test_labels_lose_their_fill_value():
    tile = make_tile("t", 3)
    found = batch_of(tile, ALL).views[GLOBAL].labels[1, 0].numpy()
    expected = tile.arrays["labels"][:32, 8:40].astype(int)
    assert (found == np.where(expected == 255, -1, expected)).all() and (found == -1).any()


@pytest.mark.parametrize("modalities", [("hr",), ("ms",), ("ms", "sar"), ("hr", "sar")])
def test_a_missing_modality_is_masked(modalities):
    batch = batch_of(make_tile("t", 1, modalities=modalities, labels=False), ALL)
    for views in batch.views.values():
        assert (views.labels == -1).all()
        for name in ALL:
            assert views.valid[name][1].any() == (name in modalities)
            assert views.images[name][1].any() == (name in modalities)


def test_missing_frames_are_masked_behind_the_present_ones():
    batch = batch_of(make_tile("t", 1, clouds=0), {"hr": [0], "ms": [2], "sar": [0, 1]})
    views = batch.views[LOCAL]
    assert views.valid["ms"][1, :, 0].all() and not views.valid["ms"][1, :, 1:].any()
    assert not views.images["ms"][1, :, 1:].any()
    assert views.days["ms"][1].tolist() == [[10, 0, 0]] * 2
    assert views.valid["sar"][1].all()


def test_everything_is_finite_although_masked_pixels_hold_nan():
    batch = batch_of(make_tile("t", 1, clouds=0.6), ALL)
    assert all(x.isfinite().all() for views in batch.views.values() for x in views.images.values())
