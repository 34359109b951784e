"""What charts draw: averaged series, shares of experts."""

import math

import numpy as np
import pytest

from engine.report.expert_maps import expert_shares
from engine.report.history import History
from engine.report.panels import group_means, running_mean
from tests.unit.engine.report.records import record


def test_long_series_are_averaged():
    x = np.arange(1200.0)
    y = x**2
    y[2] = math.nan
    short_x, short_y = group_means(x, y, 400)
    assert len(short_x) == 400
    assert short_x[:2].tolist() == [1.0, 4.0]
    assert short_y[:2].tolist() == pytest.approx([0.5, (9 + 16 + 25) / 3])


def test_a_running_mean_skips_what_is_missing():
    assert running_mean(np.array([1.0, math.nan, 4.0])).tolist() == [1.0, 2.5, 4.0]


def test_expert_shares_are_percent_of_a_modality():
    load = np.zeros((1, 2, 4), int)
    load[0, 0] = [30, 10, 0, 0]
    history = History([record(0, expert_load=load.tolist())])
    figure = expert_shares(history, ["hr", "ms"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["75", "25", "0", "0"] + ["-"] * 4
