"""Trained weights from a run, a checkpoint or an exported folder, and a model made of them in one
line.

    model = load("runs/demo/pretrain", modalities=("hr",), fusion=False)

Nothing here imports DeepSpeed, except for the student of a checkpoint, which only DeepSpeed's files
hold.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from data.errors import InputError
from data.tiles.modalities import MODALITIES
from data.tiles.regions import RegionTable
from engine.checkpoint.files import MANIFEST, STATE, full_weights, manifest, newest, verify
from engine.config.typed import parse
from engine.errors import ConfigError
from models.initialise import initialise
from models.pretrained.adapt import adapt
from models.pretrained.choice import Choice
from models.pretrained.model import Pretrained
from models.pretraining.model import Pretraining
from models.skysense import SkySense
from models.spec import ModelSpec

SPEC, WEIGHTS = "spec.json", "model.safetensors"  # files of an exported folder
TRUNK = "trunk."  # what of the names of the pre-training model belongs to the part that is kept
KINDS = ("teacher", "student")


@dataclass
class Source:
    """Trained weights and what is needed to use them."""

    state: dict[str, Tensor]  # by the names of ``Pretraining``; an export may hold the trunk alone
    description: dict  # "weights", "step", "model", "bands", "regions": plain data

    @property
    def spec(self) -> ModelSpec:
        """The specification of the trained model."""
        return parse(ModelSpec, self.description["model"], "model")


def load(
    path: str | Path,
    weights: str = "teacher",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    frozen: Sequence[str] = (),
    **choices,
) -> Pretrained:
    """A trained model, or part of it, ready for use; in eval mode.

    Args: path: run folder (its newest checkpoint), checkpoint, or folder of ``skysense export``.
        weights: "teacher" (what the paper's downstream results use), "student", or "random" for the
        first values of
            training, drawn from ``seed`` (table 16).
        dtype: of all weights; geo-context prototypes stay float32.
        frozen: parts that do not train: any of "tokenizers", "backbone", "fusion", "context".
        choices: fields of ``models.pretrained.choice.Choice``: modalities, fusion, context, prompts,
            merge, fixed_gate, expert, seed.

    Raises:
        ConfigError, InputError, ModelError: one line, if the folder, the choice and the weights do not fit each other.
    """
    choice = Choice.from_options(choices)
    source = read(path, "teacher" if weights == "random" else weights)
    sensors, spec = choice.sensors(source.spec), choice.specification(source.spec)
    with torch.device("meta"):
        trunk = SkySense(spec)
    if weights == "random":
        trunk.to_empty(device="cpu")
        if trunk.context is not None:
            trunk.context.prototypes.fill_(torch.nan)  # waits for its first value
        initialise(trunk, choice.seed, TRUNK.__add__)
        report = [f"random weights of seed {choice.seed}"]
    else:
        found = adapt(
            {
                name.removeprefix(TRUNK): x
                for name, x in source.state.items()
                if name.startswith(TRUNK)
            },
            {name: x.shape for name, x in trunk.state_dict().items()},
            source=source.spec,
            target=spec,
            sensors=sensors,
            bands=source.description["bands"],
            expert=choice.expert,
            seed=choice.seed,
        )
        if found.missing:
            raise InputError(
                f"{path}: {len(found.missing)} weights of the model wanted are not there, first "
                f"{found.missing[0]}; the folder is incomplete or of another version"
            )
        trunk.load_state_dict(found.state, assign=True)
        report = found.report()
    return Pretrained(trunk.to(device=device, dtype=dtype), frozen, report)


def load_pretraining(path: str | Path, weights: str = "teacher") -> Pretraining:
    """The whole model of pre-training, heads included, in one process, in eval mode and without
    gradients.

    Raises InputError if weights are missing, as in an export without heads.
    """
    source = read(path, weights)
    with torch.device("meta"):
        model = Pretraining(source.spec)
    wrong = sorted(model.state_dict().keys() ^ source.state.keys())
    if wrong:
        raise InputError(
            f"{path}: expected all weights of pre-training, found {len(wrong)} missing or unknown, first "
            f"{wrong[0]}; the folder is incomplete, or an export without --heads"
        )
    model.load_state_dict(source.state, assign=True)
    return model.eval().requires_grad_(False)


def regions(path: str | Path) -> RegionTable:
    """The table from places to rows of the geo-context prototypes: ``lookup`` and ``nearest`` give
    them."""
    return RegionTable.from_json(describe(Path(path))["regions"])


def read(path: str | Path, weights: str = "teacher") -> Source:
    """Weights from the disk, float32 as a checkpoint holds them, or in the type of an export.
    Raises InputError.

    A checkpoint's files are compared with the checksums of its manifest before they are used.
    """
    if weights not in KINDS:
        raise ConfigError(f"weights: expected {' or '.join(map(repr, KINDS))}, found {weights!r}")
    folder = locate(Path(path))
    description = describe(folder)
    if (folder / SPEC).is_file():
        if description["weights"] != weights:
            raise InputError(
                f"{folder}: expected the {weights}, found an export of the {description['weights']}"
            )
        return Source(load_file(folder / WEIGHTS), description)
    files = manifest(folder)
    verify(folder, files, sorted(name for name in files if name.startswith("ema/")))
    shard = None
    if weights == "student":
        from engine.distributed import zero_files  # the only reader of DeepSpeed's files

        parts = [
            zero_files.saved_partitions(folder, rank) for rank in range(description["world_size"])
        ]
        shard = lambda rank, group: parts[rank][group].float()
    return Source(full_weights(folder, shard), {**description, "weights": weights})


def describe(path: Path) -> dict:
    """What the folder says of its weights. Raises InputError if it holds none."""
    folder = locate(path)
    if (folder / SPEC).is_file():
        return json.loads((folder / SPEC).read_text())
    verify(folder, manifest(folder), [STATE])
    state = json.loads((folder / STATE).read_text())
    bands = {name: list(MODALITIES[name].bands) for name in state["model"]["modalities"]}
    return {name: state[name] for name in ("step", "world_size", "model", "regions")} | {
        "bands": bands
    }


def locate(path: Path) -> Path:
    """The folder with weights that a path means. Raises InputError."""
    if (path / SPEC).is_file() or (path / MANIFEST).is_file():
        return path
    found = newest(path)
    if found is None:
        raise InputError(
            f"{path}: expected a run folder with a complete checkpoint, a checkpoint, or a folder of "
            f"skysense export, found {'none of them' if path.is_dir() else 'no such folder'}"
        )
    return found
