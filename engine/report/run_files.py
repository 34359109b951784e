"""What a run left on the disk; what is no run, or half of one, is refused."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from data.stream.mixture import Mixture
from data.tiles.known import Authority
from data.tiles.modalities import MODALITIES
from engine.checkpoint.files import STATE, newest
from engine.config.load import Config, load
from engine.errors import ConfigError
from engine.pretrained.sensors import sensors_from
from engine.report.history import History
from engine.training import metrics, rollback
from engine.training.rollback import Rollback

CONFIG = "config.json"
ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class RunFiles:
    """What a run left on the disk."""

    folder: Path
    config: Config
    environment: dict  # of environment.json
    history: History
    checkpoint: Path  # the newest whole one
    state: dict  # its state.json
    dataset: Mixture
    quarantine: list[dict]  # samples that were replaced
    faults: list[dict]  # faults of reading, by step and rank
    rollbacks: list[Rollback]

    @property
    def batch_size(self) -> int:
        """Samples of a step, over all ranks."""
        return self.config.batch_size

    @property
    def prototypes(self) -> int:
        """K, prototypes of each head."""
        return self.config.settings.model.head.prototypes


def read(folder: Path, shards: str | None = None) -> RunFiles:
    """Read all files of a run.

    Args:
        folder: the run folder.
        shards: where the dataset is now; None: where the configuration says.

    Raises:
        ConfigError: something is missing, or the dataset is not the one of the run.
        InputError: the dataset cannot be read.
    """
    _check_run_folder(folder)
    records = metrics.read(folder)
    if not records:
        raise ConfigError(
            f"{folder}: expected at least one step in {metrics.FILE}, found none; train first"
        )
    checkpoint = newest(folder)
    if checkpoint is None:
        raise ConfigError(
            f"{folder}: expected a whole checkpoint in checkpoints/, found none; let the run save"
            " one (skysense.checkpoint.every, or a stop file)"
        )
    state = json.loads((checkpoint / STATE).read_text())
    config = load(folder / CONFIG, _with_sensors_of(state, str(checkpoint)))
    if shards is not None:
        data = replace(config.settings.data, shards=shards, mixture={})
        config = replace(config, settings=replace(config.settings, data=data))
    return RunFiles(
        folder=folder,
        config=config,
        environment=json.loads((folder / ENVIRONMENT).read_text()),
        history=History(records),
        checkpoint=checkpoint,
        state=state,
        dataset=_open_dataset(config, state["fingerprint"]),
        quarantine=_lines(folder, "quarantine"),
        faults=_lines(folder, "faults"),
        rollbacks=rollback.read(folder),
    )


def _with_sensors_of(state: dict, where: str) -> list[str]:
    """Make this process know the sensors of a checkpoint.

    Returns:
        What the run's configuration need not be asked for any more, as overrides of it.
    """
    if "sensors" not in state:  # of an earlier release, which had built-in ones alone
        return []
    sensors = sensors_from(state["sensors"], where)
    MODALITIES.add(sensors.values(), where, Authority.RUN)
    return ['skysense.data.sensors=""']


def _check_run_folder(folder: Path) -> None:
    """Raise ConfigError for a folder without the files that every run writes first."""
    for name in (CONFIG, ENVIRONMENT):
        if (folder / name).is_file():
            continue
        found = "no such folder"
        if folder.is_dir():
            found = f"no {name} in it"
        raise ConfigError(
            f"{folder}: expected a run folder ({CONFIG}, {metrics.FILE}, checkpoints), found"
            f" {found}; give the --run_dir of launch/pretrain.py"
        )


def _open_dataset(config: Config, fingerprint: str) -> Mixture:
    """Open the dataset of a run. Raise ConfigError for one with another fingerprint."""
    dataset = Mixture.open(config.settings.data)
    if dataset.fingerprint != fingerprint:
        raise ConfigError(
            f"{dataset.path}: expected the run's dataset, fingerprint {fingerprint}, found"
            f" {dataset.fingerprint}; give its folder with --shards"
        )
    return dataset


def _lines(folder: Path, kind: str) -> list[dict]:
    """Records of all ranks' files of a kind; a line that a crash cut short is left out."""
    records = []
    for file in sorted(folder.glob(f"{kind}-*.jsonl")):
        for line in file.read_text().splitlines():
            if line.endswith("}"):
                records.append(json.loads(line))
    return records
