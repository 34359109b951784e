"""A run's configuration: one JSON file with DeepSpeed's keys and one ``"skysense"`` object.

Both are strict, and every value has one owner. Batch size, precision, clipping and optimizer are
DeepSpeed's keys; all else is typed in ``engine/config/settings.py``.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.suggest import suggest
from engine.config.deepspeed_keys import ACCEPTED, REFUSED
from engine.config.merge import lay_over, merged_file
from engine.config.renamed import refuse_renamed
from engine.config.rules import problems
from engine.config.sensors import learn_sensors
from engine.config.settings import OptimizerSettings, Settings
from engine.config.typed import expected, found, has_type, parse
from engine.errors import ConfigError

# Dictionaries of named entries in the skysense object. An entry of null is taken away.
_NAMED_ENTRIES = (
    ("data", "frames"),
    ("data", "mixture"),
    ("data", "views", "global_pixels"),
    ("data", "views", "local_pixels"),
    ("model", "modalities"),
)
_SHARES = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
# Gradients are summed over the ranks in this type unless the file names another. DeepSpeed's own
# default is that of the weights, so that bf16 would round the sum at each of the ranks.
REDUCTION_TYPE = "fp32"


@dataclass(frozen=True)
class Config:
    """What ``load`` returns."""

    settings: Settings
    optimizer: OptimizerSettings
    deepspeed: dict  # ready for deepspeed.initialize: no "skysense", batch sizes filled in
    merged: dict  # the file over its base with overrides: what the run folder keeps

    @property
    def batch_size(self) -> int:
        """Samples of a step over all ranks."""
        return self.deepspeed["train_batch_size"]

    def complete(self) -> dict:
        """The configuration with every default of ours, as JSON.

        The share of a rank in a batch is left out: it follows from the number of ranks.
        """
        deepspeed = {key: value for key, value in self.deepspeed.items() if key not in _SHARES}
        optimizer = {**deepspeed["optimizer"], "params": asdict(self.optimizer)}
        complete = {**deepspeed, "optimizer": optimizer, "skysense": asdict(self.settings)}
        return json.loads(json.dumps(complete))


def load(
    path: str | os.PathLike, overrides: Sequence[str] = (), *, world_size: int | None = None
) -> Config:
    """Read, merge and check a configuration.

    Args:
        path: JSON file. ``skysense.base`` may name another one, relative to it, that it is laid
            over.
        overrides: ``place=value`` each, such as ``skysense.schedule.steps=100``. The value is JSON,
            else a string.
        world_size: Number of ranks of the run. None leaves out the checks that need it, to read a
            finished run's file.

    Raises:
        ConfigError: One line on the first thing that is unknown, misspelt, of a wrong type, or
            impossible together with another.
    """
    merged = merged_file(Path(path), overrides)
    deepspeed = {key: value for key, value in merged.items() if key != "skysense"}
    try:
        _check_keys(deepspeed, {**ACCEPTED, "skysense": dict}, above="")
        settings = _settings(merged.get("skysense", {}))
        learn_sensors(settings)
        for problem in problems(settings, deepspeed, world_size):
            raise ConfigError(problem)  # the first one: the others often follow from it
        params = deepspeed["optimizer"].get("params", {})
        optimizer = parse(OptimizerSettings, params, "optimizer.params")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    deepspeed.setdefault("communication_data_type", REDUCTION_TYPE)
    if world_size is not None:
        deepspeed["train_micro_batch_size_per_gpu"] = deepspeed["train_batch_size"] // world_size
        deepspeed["gradient_accumulation_steps"] = 1
    return Config(settings, optimizer, deepspeed, merged)


def _settings(section: Any) -> Settings:
    """The typed skysense object.

    The section is laid over the defaults, so that naming one modality does not take the others
    away.
    """
    if isinstance(section, dict):
        refuse_renamed(section, "skysense")
        defaults = json.loads(json.dumps(asdict(Settings())))
        section = lay_over(defaults, section)
        for place in _NAMED_ENTRIES:
            _drop_null_entries(section, place)
    return parse(Settings, section, "skysense")


def _drop_null_entries(section: Any, place: Sequence[str]) -> None:
    """Take the entries that are null out of the dictionary at ``place`` below ``section``."""
    for name in place:
        if not isinstance(section, dict):
            return  # of a wrong type, as the parser will say
        section = section[name]
    if not isinstance(section, dict):
        return
    for key in [key for key, entry in section.items() if entry is None]:
        del section[key]


def _check_keys(content: dict, known: dict, above: str) -> None:
    """Raise ConfigError for the first DeepSpeed key that is refused, unknown, or of a wrong type.

    Args:
        content: An object of the file.
        known: The keys that it may have.
        above: Dotted place of the object with a dot behind it, empty for the whole file.
    """
    for key, value in content.items():
        place = f"{above}{key}"
        if place in REFUSED:
            raise ConfigError(f"{place}: {REFUSED[place]}")
        if key not in known:
            raise ConfigError(f'unknown key "{place}"{suggest(key, known)}')
        kinds = known[key]
        if isinstance(kinds, dict):
            _require(value, dict, place)
            _check_keys(value, kinds, above=f"{place}.")
        else:
            _require(value, kinds, place)


def _require(value: Any, kinds: type | tuple[type, ...], place: str) -> None:
    """Raise ConfigError if a value has none of the types ``kinds``."""
    if not has_type(value, kinds):
        raise ConfigError(f"expected {expected(kinds)}, found {found(value)} at {place}")
