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
    sizes = {"bands": 4, "frames": 2, "pixels_per_cell": 2, "merge": merge}
    sizes["position_grids"] = [2, 2]
    return [
        f"skysense.data.sensors={path}",
        f"skysense.data.frames.{sensor['key']}=2",
        f"skysense.model.modalities.{sensor['key']}={json.dumps(sizes)}",
    ]


def test_a_sensors_file_is_enough(tmp_path):
    config = load(DEMO, overrides(tmp_path), world_size=2)
    assert config.settings.model.modalities["polsar"].pixels_per_cell == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gsd": 10}, "polsar.pixels_per_cell: expected 1 (pixels of 10 m), found 2"),
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
