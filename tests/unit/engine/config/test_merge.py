"""From a file, its bases and overrides to one configuration."""

import json

import pytest

from engine.config.load import load
from engine.errors import ConfigError
from tests.unit.engine.config.files import DEMO, written


def test_overrides_reach_every_depth_and_the_merged_file():
    config = load(
        DEMO,
        [
            "skysense.model.modalities.ms.frames=4",
            "skysense.data.frames.ms=4",
            "bf16.enabled=true",
            "skysense.text.weights=/a/b.pt",
        ],
        world_size=2,
    )
    assert (
        config.settings.model.modalities["ms"].frames == 4
        and config.settings.model.modalities["sar"].frames == 3
    )
    assert config.settings.text.weights == "/a/b.pt"
    assert config.deepspeed["bf16"] == {"enabled": True}
    assert config.merged["skysense"]["data"]["frames"]["ms"] == 4


def test_a_base_is_laid_under_the_file(tmp_path):
    written(tmp_path, DEMO.read_text(), "base.json")
    middle = {"train_batch_size": 8, "skysense": {"base": "base.json", "model": {"queries": 3}}}
    written(tmp_path, middle, "middle.json")
    path = written(
        tmp_path, {"skysense": {"base": "middle.json", "model": {"widths": [64, 128, 256, 512]}}}
    )
    config = load(path, world_size=2)
    assert config.settings.model == load(DEMO).settings.model.variant(
        queries=3, widths=(64, 128, 256, 512)
    )
    assert config.deepspeed["train_batch_size"] == 8 and "base" not in config.merged["skysense"]


def test_bases_in_a_circle_are_refused(tmp_path):
    written(tmp_path, {"skysense": {"base": "run.json"}}, "other.json")
    with pytest.raises(ConfigError, match="comes back to itself"):
        load(written(tmp_path, {"skysense": {"base": "other.json"}}))


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"a": 1,}', "not JSON at line 1, column"),
        ('{"bf16": {}, "bf16": {}}', 'the key "bf16" stands twice'),
        ('{"gradient_clipping": NaN}', "expected a number, found NaN"),
        ("[]", "expected an object, found list"),
    ],
)
def test_broken_files_are_named(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load(tmp_path / "none.json")


def test_the_description_is_that_of_the_file_and_not_of_its_base(tmp_path):
    base = json.loads(DEMO.read_text())
    written(tmp_path, base, "base.json")
    path = written(tmp_path, {"skysense": {"base": "base.json"}})
    assert base["skysense"]["description"]
    assert load(path).settings.description == ""
