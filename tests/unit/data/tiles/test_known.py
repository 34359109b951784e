"""One table of sensors a process: filled by files, never contradicting itself."""

from dataclasses import replace

import pytest

from data.errors import InputError
from data.tiles.known import Authority, KnownSensors
from data.tiles.modalities import SENSORS
from data.tiles.sensor import Display, Modality

POLSAR = Modality(
    key="polsar",
    title="PolSAR",
    bands=("HH", "HV", "VH", "VV"),
    gsd=10.0,
    unit="dB",
    dtype="float32",
    nodata=float("nan"),
    display=Display(colour="#000000"),
)
MEASURED = replace(POLSAR, mean=(1.0, 2.0, 3.0, 4.0), std=(1.0, 1.0, 1.0, 1.0))
OTHER = replace(MEASURED, mean=(0.0, 2.0, 3.0, 4.0))


def known(*sensors: Modality) -> KnownSensors:
    """The built-in sensors and some more."""
    table = KnownSensors(SENSORS)
    for sensor in sensors:
        table.add([sensor], "a file")
    return table


def test_own_sensors_follow_the_built_in_ones_in_one_order():
    other = replace(POLSAR, key="alpha")
    assert list(known(POLSAR, other)) == ["hr", "ms", "sar", "alpha", "polsar"]
    assert list(known(other, POLSAR)) == list(known(POLSAR, other))
    assert [sensor.key for sensor in known(POLSAR).own()] == ["polsar"]


def test_to_say_the_same_twice_changes_nothing():
    once = known(POLSAR)
    twice = known(POLSAR, replace(POLSAR, title="another title"))
    assert once.described() == twice.described()


@pytest.mark.parametrize(
    "change",
    [
        {"bands": ("HH", "HV", "VV", "VH")},
        {"gsd": 5.0},
        {"unit": "K"},
        {"scale": 2.0},
        {"dtype": "uint16"},
        {"step": 0.01},
        {"nodata": 0.0},
    ],
)
def test_another_sensor_of_the_same_key_is_refused_and_nothing_is_learnt(change):
    table = known(POLSAR)
    new = replace(POLSAR, key="alpha")
    with pytest.raises(InputError, match="a.json: sensor 'polsar': expected"):
        table.add([new, replace(POLSAR, **change)], "a.json")
    assert list(table) == ["hr", "ms", "sar", "polsar"]


def test_a_built_in_sensor_stays_what_it_is():
    with pytest.raises(InputError, match=r"sensor 'sar': expected step 0.01"):
        known(replace(SENSORS[2], step=None))


def test_the_highest_authority_says_the_statistics():
    table = known(POLSAR)
    assert not table["polsar"].is_measured
    table.add([MEASURED], "a dataset")
    assert table["polsar"] == MEASURED
    with pytest.raises(InputError, match=r"mean.*skysense.data.sensors"):
        table.add([OTHER], "another dataset")
    table.add([OTHER], "the run", Authority.RUN)
    table.add([MEASURED], "a dataset")
    table.add([POLSAR], "a dataset that nobody has measured")
    assert table["polsar"] == OTHER


def test_a_dataset_may_have_statistics_of_a_built_in_sensor():
    own = replace(SENSORS[1], mean=(1000.0,) * 10, std=(500.0,) * 10)
    table = known(own)
    assert table["ms"].mean == own.mean
    with pytest.raises(InputError, match="sensor 'ms': expected mean"):
        table.add([SENSORS[1]], "a dataset with the program's own")


def test_a_task_begins_with_the_built_in_sensors_and_leaves_no_trace():
    table = known(MEASURED)
    with table.apart():
        assert list(table) == ["hr", "ms", "sar"]
        table.add([OTHER], "the file of another run")
        assert table["polsar"] == OTHER
    assert table["polsar"] == MEASURED


def test_another_process_learns_the_same():
    table = known(MEASURED)
    copy = KnownSensors(SENSORS)
    for sensor, authority in table.described():
        copy.add([sensor], "the first process", authority)
    assert copy.described() == table.described()
