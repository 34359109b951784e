"""Schedules at their edges, and against numpy formulas written from the supplement's section C."""

import math

import numpy as np
import pytest

from engine.config.settings import LossSettings, OptimizerSettings, ScheduleSettings, Settings
from engine.training.schedules import Schedules

STEPS = 200
WARMUP = 20
SETTINGS = Settings(
    schedule=ScheduleSettings(
        steps=STEPS, warmup=WARMUP, final_lr=1e-6, final_weight_decay=0.2, ema_start=0.996
    ),
    loss=LossSettings(teacher_temperature_warmup=50, freeze_last_layer=7),
)
SCHEDULES = Schedules(SETTINGS, OptimizerSettings(lr=2e-4, weight_decay=0.04))


def column(name: str) -> np.ndarray:
    return np.array([getattr(SCHEDULES.at(step), name) for step in range(STEPS)])


def test_learning_rate_is_a_straight_line_and_then_half_a_cosine():
    expected = np.concatenate(
        [
            np.linspace(0, 2e-4, WARMUP + 2)[1:-1],
            1e-6 + (2e-4 - 1e-6) * np.cos(np.linspace(0, np.pi / 2, STEPS - WARMUP)) ** 2,
        ]
    )
    np.testing.assert_allclose(column("lr"), expected, rtol=1e-12)


def test_learning_rate_edges():
    assert SCHEDULES.at(0).lr > 0  # no step is wasted
    assert SCHEDULES.at(WARMUP).lr == pytest.approx(2e-4, rel=1e-12)
    assert SCHEDULES.at(STEPS - 1).lr == 1e-6


@pytest.mark.parametrize(
    "name, first, last", [("weight_decay", 0.04, 0.2), ("momentum", 0.996, 1.0)]
)
def test_cosines_over_the_whole_run(name, first, last):
    expected = first + (last - first) * np.sin(np.linspace(0, np.pi / 2, STEPS)) ** 2
    np.testing.assert_allclose(column(name), expected, rtol=1e-12)
    assert column(name)[0] == pytest.approx(first, rel=1e-15) and column(name)[-1] == last


def test_teacher_temperature_rises_and_stays():
    expected = np.minimum(0.04 + 0.03 * np.arange(STEPS) / 50, 0.07)
    np.testing.assert_allclose(column("teacher_temperature"), expected, rtol=1e-12)


def test_last_layer_is_frozen_for_its_first_steps_only():
    assert [SCHEDULES.at(step).last_layer_lr for step in (0, 6)] == [0.0, 0.0]
    assert SCHEDULES.at(7).last_layer_lr == SCHEDULES.at(7).lr


@pytest.mark.parametrize("steps, warmup", [(1, 0), (2, 1), (2, 0)])
def test_runs_of_a_step_or_two_have_values(steps, warmup):
    schedules = Schedules(
        Settings(schedule=ScheduleSettings(steps=steps, warmup=warmup)),
        OptimizerSettings(lr=1e-3, weight_decay=0.1),
    )
    for step in range(steps):
        assert all(math.isfinite(value) for value in vars(schedules.at(step)).values())
    assert schedules.at(steps - 1).momentum == 1.0


def test_no_warmup_starts_at_the_peak():
    settings = Settings(schedule=ScheduleSettings(steps=9, warmup=0))
    schedules = Schedules(settings, OptimizerSettings(lr=1e-3, weight_decay=0))
    assert schedules.at(0).lr == pytest.approx(1e-3)
