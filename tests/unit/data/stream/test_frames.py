"""Frames: which are drawn, how their dates move, which the student sees."""

from datetime import date

import numpy as np
import pytest

from data.seeded import generator
from data.stream.frames import draw_frames, draw_seen, jitter_days
from data.stream.settings import AugmentSettings

COUNTS = {"hr": 1, "ms": 6, "sar": 3}


def test_frames_come_in_time_order_without_repeats():
    available = np.array([1, 2, 5, 8, 9, 13])
    for seed in range(50):
        drawn = draw_frames(generator(seed), available, 4)
        assert len(drawn) == 4 and (np.diff(drawn) > 0).all() and set(drawn) <= set(available)
    assert draw_frames(generator(0), available, 6).tolist() == available.tolist()
    assert draw_frames(generator(0), available, 20).tolist() == available.tolist()
    assert len(draw_frames(generator(0), [], 3)) == 0


def test_frames_are_drawn_equally_often():
    counts = np.bincount(
        np.concatenate([draw_frames(generator(seed), np.arange(8), 3) for seed in range(2000)])
    )
    assert np.abs(counts - 750).max() < 4.5 * np.sqrt(2000 * 3 / 8 * 5 / 8)  # binomial deviation


def test_days_without_jitter_are_the_calendar():
    dates = ["2019-01-01", "2019-03-01", "2020-03-01", "2019-12-31", "2020-12-31"]
    assert jitter_days(generator(0), dates, 0).tolist() == [0, 59, 60, 364, 364]


def test_jitter_moves_each_date_by_at_most_its_range_across_the_year():
    start = date(2018, 12, 30)
    seen = set()
    for seed in range(200):
        for day in jitter_days(generator(seed), [start.isoformat()] * 2, 5):
            seen.add((int(day) - 363) % 365)
    assert seen == {(move % 365) for move in range(-5, 6)}


def seen_often(times=4000, **shares):
    """What the student sees in many views: modality -> times, T bool."""
    settings = AugmentSettings(**shares)
    drawn = [draw_seen(generator(seed), COUNTS, settings) for seed in range(times)]
    return {name: np.stack([seen[name] for seen in drawn]) for name in COUNTS}


def test_without_absence_the_student_sees_all():
    for seen in seen_often(50, absent_sensors=0.0, absent_frames=0.0).values():
        assert seen.all()


def test_sensors_are_absent_as_often_as_asked_and_independently():
    seen = seen_often(absent_sensors=0.3, absent_frames=0.0)
    absent = np.stack([~frames.any(axis=1) for frames in seen.values()])  # sensors, times
    # all three were drawn absent with 0.027; one of them stays then
    expected = 0.3 - 0.3**3 / 3
    assert np.abs(absent.mean(axis=1) - expected).max() < 4 * np.sqrt(0.3 * 0.7 / 4000)
    assert abs(np.corrcoef(absent)[0, 1]) < 0.08
    for frames in seen.values():
        assert (frames.all(axis=1) | ~frames.any(axis=1)).all()


def test_frames_are_absent_as_often_as_asked_within_a_sensor_that_is_seen():
    seen = seen_often(absent_sensors=0.0, absent_frames=0.4)
    assert seen["hr"].all()  # its only frame stays
    expected = 0.4 - 0.4**6 / 6
    assert abs((~seen["ms"]).mean() - expected) < 4 * np.sqrt(0.24 / 24000)


@pytest.mark.parametrize("shares", [(0.99, 0.0), (0.0, 0.99), (0.99, 0.99)])
def test_one_sensor_and_one_frame_of_it_always_stay(shares):
    settings = AugmentSettings(absent_sensors=shares[0], absent_frames=shares[1])
    for seed in range(300):
        drawn = draw_seen(generator(seed), COUNTS, settings)
        assert any(seen.any() for seen in drawn.values())
        assert draw_seen(generator(seed), {"ms": 1}, settings)["ms"].tolist() == [True]
    assert draw_seen(generator(0), {}, settings) == {}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"absent_sensors": 1.0}, "augment.absent_sensors: expected a share from 0 to below 1"),
        ({"absent_frames": -0.1}, "augment.absent_frames: expected a share from 0 to below 1"),
        ({"date_jitter_days": -1}, "augment.date_jitter_days: expected 0 or more days, found -1"),
    ],
)
def test_impossible_settings_are_refused(change, line):
    assert AugmentSettings(**change).problem().startswith(line)
