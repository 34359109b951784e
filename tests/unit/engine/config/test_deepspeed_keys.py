"""The tables of DeepSpeed's keys against the installed DeepSpeed."""

import importlib
import inspect

import pytest

from engine.config.deepspeed_keys import ACCEPTED, REFUSED
from engine.config.load import load
from tests.unit.engine.config.files import DEMO

MODELS = {
    "bf16": "deepspeed.runtime.precision_config:DeepSpeedBF16Config",
    "zero_optimization": "deepspeed.runtime.zero.config:DeepSpeedZeroConfig",
    "timers.throughput": "deepspeed.utils.config:DeepSpeedThroughputTimerConfig",
    "comms_logger": "deepspeed.comm.config:CommsLoggerConfig",
    "csv_monitor": "deepspeed.monitor.config:CSVConfig",
    "wandb": "deepspeed.monitor.config:WandbConfig",
}


@pytest.mark.parametrize("section", MODELS)
def test_sections_have_the_names_of_deepspeeds_models(section):
    module, name = MODELS[section].split(":")
    model = getattr(importlib.import_module(module), name)
    table = ACCEPTED
    for part in section.split("."):
        table = table[part]
    theirs = {field.alias or key for key, field in model.model_fields.items()}
    removed = {"mics_shard_size", "mics_hierarchical_params_gather", "zeropp_loco_param"}
    refused = {
        key.removeprefix(f"{section}.") for key in REFUSED if key.startswith(f"{section}.")
    } - removed
    assert set(table) | refused == theirs
    assert not set(table) & refused


class Asked(dict):
    """A configuration that remembers which keys were looked for."""

    def __init__(self, content):
        super().__init__(content)
        self.seen = set()

    def __copy__(self):
        return self

    def __contains__(self, key):
        self.seen.add(key)
        return super().__contains__(key)

    def __getitem__(self, key):
        self.seen.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.seen.add(key)
        return super().get(key, default)

    def keys(self):
        return self


def test_top_level_has_every_key_that_deepspeed_looks_for():
    from deepspeed.runtime.config import DeepSpeedConfig

    asked = Asked(load(DEMO, world_size=1, overrides=["skysense.ep_size=1"]).deepspeed)
    DeepSpeedConfig(asked)
    ours = set(ACCEPTED) | {key for key in REFUSED if "." not in key}
    assert asked.seen <= ours
    # removed from DeepSpeed's code but still refused by us by name
    assert ours - asked.seen <= {"fp16", "sequence_parallel_size"}


def test_flops_profiler_and_optimizer_keys_occur_in_deepspeed():
    from deepspeed.profiling import constants
    from torch.optim import AdamW

    names = {
        value
        for key, value in vars(constants).items()
        if key.startswith("FLOPS_PROFILER_") and not key.endswith(("DEFAULT", "FORMAT"))
    }
    assert set(ACCEPTED["flops_profiler"]) == names
    assert set(ACCEPTED["optimizer"]["params"]) - {"torch_adam"} <= set(
        inspect.signature(AdamW).parameters
    )
