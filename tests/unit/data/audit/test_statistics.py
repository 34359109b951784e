"""Merged moments and histograms against numpy on all numbers at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.audit.findings.summary import chart
from data.audit.measure.histogram import BINS, Bins, Histogram
from data.audit.measure.moments import Moments
from data.audit.measure.pixels import Pixels
from data.audit.run import audit
from data.audit.statistics import write_statistics
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.tiles.definitions import read_sensors, sensors_of
from data.tiles.known import Authority
from data.tiles.modalities import MODALITIES
from tests.unit.tiles import make_tile


@given(
    arrays(
        np.float64,
        st.tuples(st.just(3), st.integers(1, 60)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_parts_merge_to_the_whole(pixels, cuts):
    merged = Moments.empty(3)
    for part in np.split(pixels, sorted(min(cut, pixels.shape[1]) for cut in cuts), axis=1):
        merged.merge(Moments.of(part))
    assert merged.count == pixels.shape[1]
    scale = np.abs(pixels).max() + 1
    np.testing.assert_allclose(merged.mean, pixels.mean(1), rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(merged.std, pixels.std(1), rtol=1e-9, atol=1e-7 * scale)
    np.testing.assert_array_equal(merged.low, pixels.min(1))
    np.testing.assert_array_equal(merged.high, pixels.max(1))
    np.testing.assert_array_equal(merged.at_low, (pixels == pixels.min(1, keepdims=True)).sum(1))
    np.testing.assert_array_equal(merged.at_high, (pixels == pixels.max(1, keepdims=True)).sum(1))


def test_nothing_cancels_far_from_zero():
    """A sum of squares would lose all digits here."""
    values = 1e9 + np.random.default_rng(0).normal(size=(2, 30_000))
    merged = Moments.empty(2)
    for part in np.array_split(values, 700, axis=1):
        merged.merge(Moments.of(part))
    np.testing.assert_allclose(merged.std, values.std(1), rtol=1e-9)


@pytest.fixture(scope="module")
def tiles():
    return [make_tile(f"t{i}", i, cells=4 + i % 4, clouds=0.3) for i in range(40)]


@pytest.fixture(scope="module")
def dataset(tiles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "shards"
    write_shards(tiles, folder, ShardOptions(samples_per_shard=9, hr_codec="png"))
    return ShardDataset.open(folder)


def everything(tiles, name: str) -> np.ndarray:
    """Valid pixels of all tiles as the shards hold them: (C, n) float64."""
    side = MODALITIES[name].pixels
    bands = len(MODALITIES[name].bands)
    parts = []
    for tile in tiles:
        pixels = side * tile.cells
        frames = tile.arrays[name].reshape(-1, bands, pixels, pixels)  # T C H W
        valid = np.kron(tile.valid[name], np.ones((1, side, side), bool))  # T H W
        parts.append(np.moveaxis(frames, 1, 0)[:, valid])  # C n
    values = np.concatenate(parts, 1).astype(np.float64)
    step = MODALITIES[name].step
    if not step:
        return values
    return np.float64(np.float32(np.rint(values / step)) * np.float32(step))


@pytest.mark.parametrize("name", list(MODALITIES))
def test_statistics_are_numpys_on_all_pixels(tiles, dataset, name):
    _, pixels = audit(dataset)
    values = everything(tiles, name)
    moments = pixels.moments[name]
    assert moments.count == values.shape[1]
    np.testing.assert_allclose(moments.mean, values.mean(1), rtol=1e-9)
    np.testing.assert_allclose(moments.std, values.std(1), rtol=1e-9)
    histogram = pixels.histograms[name]
    assert (histogram.counts.sum(1) == moments.count).all()
    for percent in (5, 50, 95):
        for band, percentile in zip(np.sort(values, 1), histogram.percentile(percent)):
            rank = int(percent / 100 * (len(band) - 1))
            assert percentile >= band[rank - 1] - histogram.bins.step
            assert percentile <= band[rank + 2] + histogram.bins.step


def test_written_statistics_are_numpys_and_can_be_used(tiles, dataset, tmp_path):
    _, pixels = audit(dataset)
    lines = write_statistics(tmp_path / "sensors.json", pixels)
    assert lines[0] == f"hr: mean and std of {pixels.moments['hr'].count:,} valid pixels"
    sensors = sensors_of(read_sensors(tmp_path / "sensors.json"))
    assert [sensor.key for sensor in sensors] == ["hr", "ms", "sar"]
    for sensor in sensors:
        values = everything(tiles, sensor.key) / sensor.scale
        np.testing.assert_allclose(sensor.mean, values.mean(1), rtol=1e-8)
        np.testing.assert_allclose(sensor.std, values.std(1), rtol=1e-8)
    MODALITIES.add(sensors, "the run", Authority.RUN)
    assert MODALITIES["ms"].mean == sensors[1].mean


def test_what_cannot_be_measured_is_said(tmp_path):
    pixels = Pixels()
    pixels.add("sar", np.stack([np.arange(5.0), np.full(5, -20.0)]))
    lines = write_statistics(tmp_path / "sensors.json", pixels)
    assert lines == [
        "hr: left out, has no valid pixel",
        "ms: left out, has no valid pixel",
        "sar: left out, all pixels of VH are equal",
    ]
    assert read_sensors(tmp_path / "sensors.json") == []


@pytest.mark.parametrize("name", list(MODALITIES))
def test_no_stored_number_lies_on_an_edge(name):
    sensor = MODALITIES[name]
    bins = Bins.of(sensor)
    assert bins.number <= BINS
    mean = np.array(sensor.mean) * sensor.scale
    std = np.array(sensor.std) * sensor.scale
    assert bins.start <= max((mean - 3 * std).min(), 0 if sensor.dtype != "float32" else -np.inf)
    unit = sensor.step or (1 if sensor.dtype != "float32" else None)
    if unit:
        assert bins.step / unit == pytest.approx(round(bins.step / unit))
        assert (bins.start / unit) % 1 == pytest.approx(0.5)


def test_a_chart_loses_no_pixel():
    histogram = Histogram.empty("ms")
    values = np.abs(np.random.default_rng(1).normal(3000, 3000, (10, 5000)))
    values[:, 0] = 60_000  # above all bins
    histogram.add(values)
    for counts in histogram.counts:
        drawn = chart(histogram.bins.edges, counts)
        assert sum(drawn.counts) == 5000
        assert len(drawn.edges) == len(drawn.counts) + 1
        assert (np.diff(drawn.edges) > 0).all()
