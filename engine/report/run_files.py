"""Reading what a run left on the disk, and refusing what is no run or half of one."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from data.stream.mixture import Mixture
from engine.checkpoint.files import STATE, newest
from engine.config.load import Config, load
from engine.errors import ConfigError
from engine.training import metrics

CONFIG, ENVIRONMENT = "config.json", "environment.json"


@dataclass(frozen=True)
class RunFiles:
    """What a run left on the disk."""

    folder: Path
    config: Config
    environment: dict
    records: list[dict]  # a step each
    checkpoint: Path  # the newest whole one
    state: dict  # its state.json
    dataset: Mixture
    quarantine: list[dict]
    faults: list[dict]  # of reading, by step and rank

    @property
    def batch_size(self) -> int:
        """Samples a step, over all ranks."""
        return self.config.batch_size


def read(folder: Path, shards: str | None = None) -> RunFiles:
    """All files of a run. Raises ConfigError or InputError, one line, for the first thing that is
    missing."""
    for name in (CONFIG, ENVIRONMENT):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder}: expected a run folder ({CONFIG}, {metrics.FILE}, checkpoints), found "
                f"{f'no {name} in it' if folder.is_dir() else 'no such folder'}; give the --run_dir of "
                "launch/pretrain.py"
            )
    records = metrics.read(folder)
    if not records:
        raise ConfigError(
            f"{folder}: expected a step at least in {metrics.FILE}, found none; train first"
        )
    found = newest(folder)
    if found is None:
        raise ConfigError(
            f"{folder}: expected a whole checkpoint in checkpoints/, found none; let the run save one "
            "(skysense.checkpoint.every, or a stop file)"
        )
    config = load(folder / CONFIG)
    if shards is not None:
        data = replace(config.settings.data, shards=shards, mixture={})
        config = replace(config, settings=replace(config.settings, data=data))
    state = json.loads((found / STATE).read_text())
    dataset = Mixture.open(config.settings.data)
    if dataset.fingerprint != state["fingerprint"]:
        raise ConfigError(
            f"{dataset.path}: expected the run's dataset, fingerprint {state['fingerprint']}, found "
            f"{dataset.fingerprint}; give its folder with --shards"
        )
    environment = json.loads((folder / ENVIRONMENT).read_text())
    return RunFiles(
        folder,
        config,
        environment,
        records,
        found,
        state,
        dataset,
        _lines(folder, "quarantine"),
        _lines(folder, "faults"),
    )


def _lines(folder: Path, kind: str) -> list[dict]:
    """Records of all ranks' files of a kind; a line that a crash cut short is left out."""
    return [
        json.loads(line)
        for file in sorted(folder.glob(f"{kind}-*.jsonl"))
        for line in file.read_text().splitlines()
        if line.endswith("}")
    ]
