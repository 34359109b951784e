"""Sensors files: what they say is what the program gets, and every mistake is told at once."""

import json
from math import isnan

import pytest

from data.errors import InputError
from data.tiles.definitions import Definition, parse_sensors, read_sensors
from data.tiles.modalities import MODALITIES
from data.tiles.sensor import CatalogueNames, Display, Modality

LANDSAT = {
    "key": "landsat",
    "title": "Landsat 8 OLI",
    "bands": ["blue", "green", "red"],
    "gsd": 10,
    "unit": "reflectance x 1e4",
    "mean": [500, 700, 800],
    "std": [100, 200, 300],
    "dtype": "uint16",
    "nodata": 0,
    "display": {
        "colour": "#123456",
        "true_colour": ["red", "green", "blue"],
        "least_span": 400,
    },
    "catalogue": {"platforms": ["Landsat"], "bands": {"B2": "blue"}},
}


def one(**changes) -> Definition:
    """LANDSAT with some keys changed; None takes a key away."""
    content = {key: value for key, value in (LANDSAT | changes).items() if value is not ...}
    (definition,) = parse_sensors({"sensors": [content]}, "a.json")
    return definition


def mistake(**changes) -> str:
    """The message about a file with ``changes``, without its beginning."""
    with pytest.raises(InputError) as error:
        one(**changes)
    return str(error.value).removeprefix("a.json: sensor 'landsat': ")


def test_a_file_says_everything_of_a_sensor(tmp_path):
    path = tmp_path / "sensors.json"
    path.write_text(json.dumps({"sensors": [LANDSAT]}))
    (definition,) = read_sensors(path)
    assert definition.sensor() == Modality(
        key="landsat",
        title="Landsat 8 OLI",
        bands=("blue", "green", "red"),
        gsd=10.0,
        unit="reflectance x 1e4",
        mean=(500.0, 700.0, 800.0),
        std=(100.0, 200.0, 300.0),
        dtype="uint16",
        nodata=0.0,
        display=Display(colour="#123456", true_colour=("red", "green", "blue"), least_span=400.0),
        catalogue=CatalogueNames(platforms=("landsat",), bands={"b2": "blue"}),
    )


def test_what_is_left_out_has_a_plain_meaning():
    minimal = one(title=..., mean=..., std=..., display=..., catalogue=..., key="fine", gsd=2.5)
    sensor = minimal.sensor()
    assert sensor.title == "fine" and sensor.pixels == 4 and not sensor.is_measured
    assert sensor.display.colour.startswith("#") and sensor.display.true_colour is None


@pytest.mark.parametrize("key", list(MODALITIES))
def test_built_in_sensors_survive_json(key):
    definition = Definition.of(MODALITIES[key])
    (read,) = parse_sensors(json.loads(json.dumps({"sensors": [definition.to_json()]})), "x")
    assert read == definition
    assert read.sensor().pixels == MODALITIES[key].pixels
    assert read.sensor().mean == MODALITIES[key].mean


@pytest.mark.parametrize("written", ["NaN", "nan", float("nan")])
def test_nodata_may_be_not_a_number(written):
    assert isnan(one(dtype="float32", nodata=written).sensor().nodata)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gsd": 3}, "gsd: expected a whole number of pixels along a cell of 10 m, as files are"),
        ({"gsd": 30}, "the nearest is 10, found 30"),
        ({"dtype": "float64"}, "dtype: expected 'uint8', 'uint16', 'int16' or 'float32', found"),
        ({"nodata": ...}, "nodata: is missing"),
        ({"nodata": -1}, "nodata: expected a number of type uint16 or null, found -1"),
        ({"nodata": "none"}, 'nodata: expected a number, "NaN" or null, found "none"'),
        ({"step": 0.5}, "step: expected none for whole numbers, found 0.5"),
        ({"std": [1, 0, 1]}, "std.1: expected greater than 0"),
        ({"mean": [1]}, "expected a number for each of 3 bands, or neither of the two"),
        ({"bands": ["red", "red", "blue"]}, "bands: expected names that differ in letters"),
        ({"bands": ["red", "RED_", "blue"]}, "bands: expected names that differ in letters"),
        ({"catalogue": {"bands": {"b2": "bleu"}}}, "catalogue.bands: no band 'bleu'; did you mean"),
        ({"display": {"color": "#000000"}}, 'display.color: no such key; did you mean "colour"?'),
        ({"scales": 2}, 'scales: no such key; did you mean "scale"?'),
        ({"display": {"true_colour": ["rde", "green", "blue"]}}, "no band 'rde'; did you mean"),
    ],
)
def test_a_mistake_is_named(changes, expected):
    assert expected in mistake(**changes)


@pytest.mark.parametrize(
    "key", ["Landsat", "fused", "labels", "meta", "ms_valid", "hr_2", "a.b", ""]
)
def test_a_key_names_members_of_shards(key):
    with pytest.raises(InputError, match="key: expected small letters"):
        one(key=key)


def test_all_mistakes_are_told_at_once():
    wrong = {**LANDSAT, "gsd": 7, "dtype": "int64", "bnads": []}
    second = {"key": "other"}
    with pytest.raises(InputError) as error:
        parse_sensors({"sensors": [wrong, second]}, "a.json")
    line = str(error.value)
    assert "\n" not in line
    for place in ("landsat': gsd", "landsat': dtype", "landsat': bnads", "other': bands"):
        assert place in line


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "content: expected an object"),
        ({"sensor": []}, 'sensor: no such key; did you mean "sensors"?'),
        ({"sensors": [LANDSAT, LANDSAT]}, "sensor 'landsat' is described 2 times"),
        ({"sensors": [3]}, "sensors[0]"),
    ],
)
def test_a_file_that_is_something_else_is_refused(content, expected):
    with pytest.raises(InputError) as error:
        parse_sensors(content, "a.json")
    assert expected in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match="expected a sensors file, found no such file"):
        read_sensors(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="bad.json: not valid JSON"):
        read_sensors(tmp_path / "bad.json")
