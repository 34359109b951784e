"""What a configuration says of own sensors, without any dataset."""

import json
from pathlib import Path

import pytest

from engine.config.load import load
from engine.errors import ConfigError
from tests.paths import ROOT

DEMO = ROOT / "ds_configs" / "demo_cpu.json"
POLSAR = {
    "key": "polsar",
    "bands": ["HH", "HV", "VH", "VV"],
    "gsd": 5,
    "unit": "dB",
    "mean": [-9, -15, -15, -9],
    "std": [4, 4, 4, 4],
    "dtype": "float32",
    "nodata": "NaN",
}


def overrides(folder: Path, **changes) -> list[str]:
    """POLSAR with some keys changed, in a sensors file and in the model."""
    sensor = {**POLSAR, **changes}
    path = folder / "sensors.json"
    path.write_text(json.dumps({"sensors": [sensor]}))
    merge = [False, False, False]
    sizes = {"bands": 4, "frames": 2, "merge": merge, "position_grids": [2, 2]}
    return [
        f"skysense.data.sensors={path}",
        f"skysense.data.frames.{sensor['key']}=2",
        f"skysense.model.modalities.{sensor['key']}={json.dumps(sizes)}",
        f"skysense.data.views.global_pixels.{sensor['key']}=20",
        f"skysense.data.views.local_pixels.{sensor['key']}=8",
    ]


def test_a_sensors_file_is_enough(tmp_path):
    config = load(DEMO, overrides(tmp_path), world_size=2)
    assert config.settings.data.views.global_pixels["polsar"] == 20
    assert config.settings.data.views.sizes["local"].label_pixels == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": [], "std": []}, "polsar: expected its mean and std, which nobody has measured"),
        ({"bands": ["HH", "HV", "VH"], "mean": [], "std": []}, "polsar.bands: expected 3 (HH, HV"),
        ({"key": "double"}, "double: torch keeps the name 'double' for itself"),
        ({"dtype": "float64"}, "skysense.data.sensors: "),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, changes, words):
    with pytest.raises(ConfigError) as error:
        load(DEMO, overrides(tmp_path, **changes), world_size=2)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "global_pixels.polsar=null",
            "global_pixels.polsar: expected the pixels along a side of a",
        ),
        ("local_pixels.polsar=18", "local_pixels.polsar: expected a multiple of 4"),
        (
            "local_pixels.polsra=8",
            "local_pixels.polsra: no known sensor, expected some of ['hr', 'ms', 'polsar', ",
        ),
    ],
)
def test_a_view_of_an_own_sensor_has_a_size_of_its_own(tmp_path, change, words):
    with pytest.raises(ConfigError) as error:
        load(DEMO, [*overrides(tmp_path), f"skysense.data.views.{change}"], world_size=2)
    assert words in str(error.value)
