"""The sensor registry against the published table."""

from dataclasses import replace

import numpy as np
import pytest

from data.errors import InputError
from data.tiles.modalities import MODALITIES, normalise, observed


def test_registry_has_the_published_sensors_in_order():
    assert list(MODALITIES) == ["hr", "ms", "sar"]
    assert [len(m.bands) for m in MODALITIES.values()] == [3, 10, 2]
    assert [m.pixels for m in MODALITIES.values()] == [32, 1, 1]
    assert all(len(m.mean) == len(m.std) == len(m.bands) for m in MODALITIES.values())


@pytest.mark.parametrize(
    "key, pixel, expected",
    [
        ("hr", [255, 0, 51], [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]),
        ("sar", [-12.55, -26.10], [0.0, -1.0]),
        (
            "ms",
            [
                884.30,
                1144.16,
                1297.47,
                1624.91,
                2194.64,
                2422.21,
                2517.76,
                2581.65,
                2368.51,
                1805.07 + 1343.48,
            ],
            [0] * 9 + [1],
        ),
    ],
)
def test_normalise_by_hand(key, pixel, expected):
    found = normalise(np.array(pixel, np.float64)[None, :, None, None], key)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), expected, atol=2e-5)


def test_normalise_refuses_wrong_band_count():
    with pytest.raises(InputError, match="expected 10 bands"):
        normalise(np.zeros((3, 4, 4)), "ms")


def test_nodata_rules():
    ms = np.ones((2, 10, 2, 2), np.uint16)
    ms[1, 4, 0, 1] = 0  # one band is enough
    assert observed(ms, MODALITIES["ms"]).sum() == 7 and not observed(ms, MODALITIES["ms"])[1, 0, 1]
    sar = np.zeros((1, 2, 1, 3), np.float32)  # 0 dB is a number like any other
    sar[0, 1, 0, 2] = np.nan
    assert observed(sar, MODALITIES["sar"]).tolist() == [[[True, True, False]]]


def test_an_entry_that_contradicts_itself_is_refused():
    with pytest.raises(InputError, match="sensor 'ms': expected a mean and a std for each of 10"):
        replace(MODALITIES["ms"], mean=(0.0,))


def test_a_sensor_that_nobody_has_measured_is_not_normalised():
    sensor = replace(MODALITIES["sar"], mean=(), std=())
    with pytest.raises(InputError, match="normalise sar: expected its mean and std"):
        normalise(np.zeros((2, 4, 4)), sensor)


def test_catalogues_and_pictures_name_bands_that_there_are():
    for sensor in MODALITIES.values():
        assert set(sensor.catalogue.bands.values()) <= set(sensor.bands)
        assert set(sensor.display.true_colour or ()) <= set(sensor.bands)
