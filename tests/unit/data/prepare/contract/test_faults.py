"""The fault rules on made-up series with a known answer."""

import numpy as np

from data.prepare.contract.faults import (
    clear_sky,
    drop_bad_frames,
    one_frame_a_day,
    sar_to_db,
    scrambled_sar,
)
from data.prepare.contract.source import Frames


def series(valid: np.ndarray, dates: list[str], modality="ms", array=None) -> Frames:
    bands = {"ms": 10, "sar": 2}[modality]
    if array is None:
        array = np.arange(len(dates), dtype=np.float32)[:, None, None, None] * np.ones(
            (1, bands, *valid.shape[1:])
        )
    return Frames(modality=modality, array=array, valid=valid, dates=dates, source="made up")


def test_clouds_need_both_the_mask_and_the_blue_band():
    blue = np.array([200, 1499, 1500, 3000, 200, 200], np.uint16)
    snow = np.array([0, 0, 0, 0, 80, 0], np.float32)
    cloud = np.array([0, 0, 0, 0, 0, 80], np.float32)
    reflectance = np.full((1, 10, 1, 6), 9000, np.uint16)  # other bands say nothing
    reflectance[0, 0, 0] = blue
    found = clear_sky(reflectance, snow=snow[None, None], cloud=cloud[None, None])
    assert found.ravel().tolist() == [True, True, False, False, False, False]


def test_power_to_decibel_and_its_mask():
    power = np.array([[1.0, 0.1, 0.0, np.nan, -1.0, 2.0], [0.01, 0.5, 0.1, 0.1, 0.1, np.inf]])
    decibel, valid = sar_to_db(power[None, :, None, :])
    assert valid.ravel().tolist() == [True, True, False, False, False, False]
    np.testing.assert_allclose(decibel[0, :, 0, 0], [0, -20], atol=1e-6)
    np.testing.assert_allclose(decibel[0, 1, 0, 1], -3.0103, atol=1e-4)
    assert np.isfinite(decibel).all() and decibel.dtype == np.float32


def test_all_zero_sar_frame_is_dropped():
    power = np.full((3, 2, 4, 4), 0.1)
    power[1] = 0
    decibel, valid = sar_to_db(power)
    kept, dropped = drop_bad_frames(
        series(valid, ["2019-01-01", "2019-01-02", "2019-01-03"], "sar", decibel)
    )
    assert dropped == 1 and kept.dates == ["2019-01-01", "2019-01-03"]


def test_scrambled_polarisations_are_told_by_statistics():
    rng = np.random.default_rng(1)
    vv = rng.normal(-11, 3, (40, 6, 6))
    valid = np.ones((40, 6, 6), bool)
    sound = np.stack([vv, vv - 6 + rng.normal(0, 2, vv.shape)], axis=1)
    mixed = np.where(rng.random((40, 1, 6, 6)) < 0.5, sound, sound[:, ::-1])
    dates = [f"2019-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(40)]
    assert scrambled_sar(series(valid, dates, "sar", sound)) is None
    assert "scrambled" in scrambled_sar(series(valid, dates, "sar", mixed))
    assert scrambled_sar(series(~valid, dates, "sar", mixed)) is None  # nothing seen, nothing said


def test_half_valid_frames_stay():
    valid = np.zeros((3, 2, 2), bool)
    valid[0, 0], valid[1, 0, 0] = True, True  # one half, one quarter, none
    kept, dropped = drop_bad_frames(series(valid, ["2019-01-01", "2019-01-02", "2019-01-03"]))
    assert kept.dates == ["2019-01-01"] and dropped == 2


def test_one_frame_a_day_keeps_the_fullest_then_the_earliest():
    valid = np.ones((5, 2, 2), bool)
    valid[0, 0, 0] = False  # frame 1 of the same day is fuller
    kept, gone = one_frame_a_day(
        series(valid, ["2019-05-02", "2019-05-02", "2019-05-01", "2019-05-01", "2019-04-30"])
    )
    assert kept.dates == ["2019-04-30", "2019-05-01", "2019-05-02"] and gone == 2
    assert kept.array[:, 0, 0, 0].tolist() == [4, 2, 1]
