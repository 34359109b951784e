"""Trained weights as a run, a checkpoint or an exported folder holds them.

Nothing here imports DeepSpeed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from data.errors import InputError
from engine.checkpoint.buffers import BUFFERS, of_model
from engine.checkpoint.families import StoredWeights
from engine.checkpoint.files import (
    MANIFEST,
    manifest,
    newest,
    read_state,
    tensors_file,
    verify,
)
from engine.checkpoint.health import health_warning
from engine.config.renamed import refuse_renamed
from engine.config.typed import parse
from engine.distributed.pieces import EMA, MASTER
from engine.errors import ConfigError
from engine.pretrained.sensors import sensor_facts
from models.spec import ModelSpec

SPEC = "spec.json"  # files of an exported folder
WEIGHTS = "model.safetensors"
TEACHER = "teacher"
STUDENT = "student"
KINDS = (TEACHER, STUDENT)
FAMILIES = {TEACHER: EMA, STUDENT: MASTER}


@dataclass
class Source:
    """Trained weights and what is needed to use them."""

    # By the names of ``Pretraining``; an export may hold the trunk alone. Those of a checkpoint are
    # read when they are asked for.
    state: Mapping[str, Tensor]
    outline: dict[str, Tensor]  # the same names, with shapes and types that count, not values
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
        exported = load_file(folder / WEIGHTS)
        return Source(exported, exported, description)
    files = manifest(folder)
    family = FAMILIES[weights]
    used = [name for name in files if name.startswith(f"{family}/")]
    verify(folder, files, [tensors_file(Path(), BUFFERS).name, *sorted(used)])
    buffers = of_model(load_file(tensors_file(folder, BUFFERS)), weights)
    state = StoredWeights(folder, family, buffers)
    return Source(state, state.outline(), {**description, "weights": weights})


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
