"""A model made of trained weights, in one line.

model = load("runs/demo/pretrain", modalities=("hr",), fusion=False)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import InputError
from data.tiles.modalities import Modality
from data.tiles.regions import RegionTable
from engine.pretrained.sensors import sensors_from
from engine.pretrained.source import TEACHER, Source, describe, read
from models.initialise import initialise
from models.pretrained.adapt import Adapted, adapt
from models.pretrained.choice import Choice
from models.pretrained.model import Pretrained
from models.pretraining.model import Pretraining
from models.skysense import SkySense

TRUNK = "trunk."  # begins the names in the pre-training model of the part that is kept
RANDOM = "random"


def load(
    path: str | Path,
    weights: str = TEACHER,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    frozen: Sequence[str] = (),
    **choices: Any,
) -> Pretrained:
    """A trained model, or part of it, ready for use and in eval mode.

    Args:
        path: Run folder (its newest checkpoint), checkpoint, or folder of ``skysense export``.
        weights: "teacher" (what the paper's downstream results use), "student", or "random" for the
            first values of training, drawn from ``seed`` (table 16).
        dtype: Of all weights. Geo-context prototypes stay float32.
        device: Where the model goes.
        frozen: Parts that do not train: any of "tokenizers", "backbone", "fusion", "context".
        choices: Fields of ``models.pretrained.choice.Choice``: modalities, fusion, context,
            prompts, merge, fixed_gate, expert, seed.

    Raises:
        ConfigError: ``weights`` is none of the three.
        InputError: There are no weights at the path, or they are damaged or incomplete.
        ModelError: The choice does not fit the trained model.
    """
    choice = Choice.from_options(choices)
    kind = weights
    if weights == RANDOM:
        kind = TEACHER
    source = read(path, kind)
    spec = choice.specification(source.spec)
    with torch.device("meta"):
        trunk = SkySense(spec)
    if weights == RANDOM:
        _draw(trunk, choice.seed)
        report = [f"random weights of seed {choice.seed}"]
    else:
        adapted = _adapt(source, choice, trunk)
        if adapted.missing:
            raise InputError(
                f"{path}: {len(adapted.missing)} weights of the model wanted are not there, first "
                f"{adapted.missing[0]}; the folder is incomplete or of another version"
            )
        trunk.load_state_dict(adapted.state, assign=True)
        report = adapted.report()
    return Pretrained(trunk.to(device=device, dtype=dtype), frozen, report)


def _draw(trunk: SkySense, seed: int) -> None:
    """Give a trunk without values the first values of training."""
    trunk.to_empty(device="cpu")
    if trunk.context is not None:
        trunk.context.prototypes.fill_(torch.nan)  # waits for its first value

    def name_in_training(name: str) -> str:
        return TRUNK + name

    initialise(trunk, seed, name_in_training, std=trunk.spec.initial_std)


def _adapt(source: Source, choice: Choice, trunk: SkySense) -> Adapted:
    """The trained weights that fit a trunk."""
    trained: dict[str, Tensor] = {}
    for name in source.state:
        if name.startswith(TRUNK):
            trained[name.removeprefix(TRUNK)] = source.state[name]
    return adapt(
        trained,
        {name: tensor.shape for name, tensor in trunk.state_dict().items()},
        source=source.spec,
        target=trunk.spec,
        sensors=choice.sensors(source.spec),
        bands=source.description["bands"],
        expert=choice.expert,
        seed=choice.seed,
    )


def load_pretraining(path: str | Path, weights: str = TEACHER) -> Pretraining:
    """The full model of pre-training, heads included, in one process.

    It is in eval mode and without gradients.

    Raises:
        ConfigError: ``weights`` is neither "teacher" nor "student".
        InputError: Weights are missing, as in an export without heads.
    """
    source = read(path, weights)
    with torch.device("meta"):
        model = Pretraining(source.spec)
    wrong = sorted(model.state_dict().keys() ^ source.state.keys())
    if wrong:
        raise InputError(
            f"{path}: expected all weights of pre-training, found {len(wrong)} missing or unknown, "
            f"first {wrong[0]}; the folder is incomplete, or an export without --heads"
        )
    model.load_state_dict(source.state, assign=True)
    return model.eval().requires_grad_(False)


def sensors(path: str | Path) -> dict[str, Modality]:
    """The sensors that weights were trained for, own ones too; their dataset is not needed.

    ``data.tiles.modalities.normalise(pixels, sensors(path)[key])`` makes the model's input.
    """
    return sensors_from(describe(Path(path))["sensors"], str(path))


def regions(path: str | Path) -> RegionTable:
    """The table from places to rows of the geo-context prototypes.

    Its ``lookup`` and ``nearest`` give the rows.
    """
    return RegionTable.from_json(describe(Path(path))["regions"])
