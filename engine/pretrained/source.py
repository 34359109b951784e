"""Trained weights as a run, a checkpoint or an exported folder holds them.

Nothing here imports DeepSpeed, except for the student of a checkpoint, which only DeepSpeed's files
hold.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from data.errors import InputError
from engine.checkpoint.files import (
    MANIFEST,
    ShardReader,
    full_weights,
    manifest,
    newest,
    read_state,
    verify,
)
from engine.checkpoint.health import health_warning
from engine.config.renamed import refuse_renamed
from engine.config.typed import parse
from engine.errors import ConfigError
from engine.pretrained.sensors import sensor_facts
from models.spec import ModelSpec

SPEC = "spec.json"  # files of an exported folder
WEIGHTS = "model.safetensors"
TEACHER = "teacher"
STUDENT = "student"
KINDS = (TEACHER, STUDENT)


@dataclass
class Source:
    """Trained weights and what is needed to use them."""

    state: dict[str, Tensor]  # by the names of ``Pretraining``; an export may hold the trunk alone
    # "weights", "step", "model", "bands", "sensors", "regions": plain data
    description: dict[str, Any]

    @property
    def spec(self) -> ModelSpec:
        """The specification of the trained model.

        Raises:
            ConfigError: It has settings of an earlier release.
        """
        refuse_renamed({"model": self.description["model"]}, "checkpoint")
        return parse(ModelSpec, self.description["model"], "model")


def read(path: str | Path, weights: str = TEACHER) -> Source:
    """Weights from the disk: float32 of a checkpoint, or the type of an export.

    A checkpoint's files are compared with the checksums of its manifest before they are used.

    Args:
        path: Run folder (its newest checkpoint), checkpoint, or folder of ``skysense export``.
        weights: "teacher" or "student".

    Raises:
        ConfigError: ``weights`` is something else.
        InputError: The weights are not there or damaged.
    """
    if weights not in KINDS:
        raise ConfigError(f"weights: expected {' or '.join(map(repr, KINDS))}, found {weights!r}")
    folder = locate(Path(path))
    description = describe(folder)
    if _is_export(folder):
        if description["weights"] != weights:
            raise InputError(
                f"{folder}: expected the {weights}, found an export of the {description['weights']}"
            )
        return Source(load_file(folder / WEIGHTS), description)
    files = manifest(folder)
    verify(folder, files, sorted(name for name in files if name.startswith("ema/")))
    read_shard = None
    if weights == STUDENT:
        read_shard = _student_shards(folder, description["world_size"])
    return Source(full_weights(folder, read_shard), {**description, "weights": weights})


def _student_shards(folder: Path, world_size: int) -> ShardReader:
    """Reads shards of the student's master weights from a checkpoint."""
    # Imported here: everything else works where DeepSpeed is not installed.
    from engine.distributed import zero_files

    partitions = [zero_files.saved_partitions(folder, rank) for rank in range(world_size)]

    def read_shard(rank: int, group: int) -> Tensor:
        return partitions[rank][group].float()

    return read_shard


def describe(path: Path) -> dict[str, Any]:
    """What a folder says about its weights.

    Raises:
        InputError: It holds no weights.
    """
    folder = locate(path)
    if _is_export(folder):
        return json.loads((folder / SPEC).read_text())
    state = read_state(folder)
    description = {name: state[name] for name in ("step", "world_size", "model", "regions")}
    sensors = state.get("sensors")
    if sensors is None:  # of an earlier release, which had built-in ones alone
        sensors = sensor_facts(state["model"]["modalities"])
    description["sensors"] = sensors
    description["bands"] = {name: facts["bands"] for name, facts in sensors.items()}
    return description


def divergence(path: Path) -> str | None:
    """A warning if a path's weights are of a run that has diverged, None otherwise.

    Raises:
        InputError: It holds no weights.
    """
    folder = locate(path)
    if _is_export(folder):
        return None
    return health_warning(folder)


def locate(path: Path) -> Path:
    """The folder with weights that a path means.

    Raises:
        InputError: There is none.
    """
    if _is_export(path) or (path / MANIFEST).is_file():
        return path
    checkpoint = newest(path)
    if checkpoint is not None:
        return checkpoint
    problem = "no such folder"
    if path.is_dir():
        problem = "none of them"
    raise InputError(
        f"{path}: expected a run folder with a complete checkpoint, a checkpoint, or a folder of "
        f"skysense export, found {problem}"
    )


def _is_export(folder: Path) -> bool:
    return (folder / SPEC).is_file()
