"""Trained weights for another specification.

It may have some of the modules, other bands, other sensors, other merges, or one expert.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.backbone.position import resize, table_name
from models.errors import ModelError
from models.pretrained.choice import RANDOM_EXPERT, Sensor
from models.spec import ModelSpec

# Names of parameters: those that a modality owns, dense networks, tokenizers, position tables.
_OWNED = re.compile(r"(.*\b(?:tokenizers|tokens|projections|heads)\.)([^.]+)(\..*|)")
_DENSE = re.compile(r"(trunk\.|)(backbone\..*\.ffn)\.(fc[12]\..*)")
_TOKENIZER = re.compile(r".*\btokenizers\.([^.]+)\.projection\.weight")
_TABLE = re.compile(r"(.*\.positions\.tables\.)([^.]+)")


@dataclass
class Adapted:
    """Weights under the names of the model wanted."""

    state: dict[str, Tensor]
    missing: list[str]  # names without a trained value
    unused: list[str]  # trained names that the model wanted does not have
    notes: list[str]  # what was changed, one line each

    def report(self) -> list[str]:
        """Lines for the log."""
        lines = [f"{len(self.state)} tensors taken from the trained model"]
        lines += self.notes
        for line in summary(self.unused):
            lines.append(f"left out: {line}")
        for line in summary(self.missing):
            lines.append(f"without a trained value: {line}")
        return lines


def adapt(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, torch.Size],
    *,
    source: ModelSpec,
    target: ModelSpec,
    sensors: Mapping[str, Sensor],
    bands: Mapping[str, Sequence[str]],
    expert: int | None = None,
    seed: int = 0,
) -> Adapted:
    """Trained values for the parameters and buffers of another model.

    A name without a trained value of its shape is reported as missing; no value is invented.

    Args:
        state: trained tensors by name.
        wanted: names and shapes of the model wanted.
        source: specification of the trained model.
        target: specification of the model wanted.
        sensors: those of the model wanted, by name.
        bands: band names of the trained modalities.
        expert: which one becomes a dense network where ``target`` has no MoE block; -1 draws one
            for each block.
        seed: of the drawn experts.

    Raises:
        ModelError: an expert is wanted of a model without experts.
    """
    experts = {}
    if expert is not None:
        experts = kept_experts(source, expert, seed=seed)
    names = _TrainedNames(
        state=state, source=source, target=target, sensors=sensors, experts=experts
    )
    adapted = Adapted({}, [], [], [])
    used = set()
    for name, shape in wanted.items():
        origin = names.origin(name)
        value = None
        if origin in state:
            value, notes = _fit(state[origin], name, shape, sensors=sensors, bands=bands)
            adapted.notes += notes
        if value is not None and value.shape == shape:
            adapted.state[name] = value
            used.add(origin)
        else:
            adapted.missing.append(name)
    for block, kept in experts.items():
        assert source.moe is not None  # otherwise kept_experts has raised
        adapted.notes.append(
            f"{block}: expert {kept} of {source.moe.experts} as a plain network, without its gate"
        )
    adapted.unused = [name for name in state if name not in used]
    return adapted


@dataclass(frozen=True)
class _TrainedNames:
    """Finds the trained parameter from which a parameter of the model wanted starts."""

    state: Mapping[str, Tensor]
    source: ModelSpec
    target: ModelSpec
    sensors: Mapping[str, Sensor]
    experts: Mapping[str, int]  # block -> the expert that it keeps

    def origin(self, name: str) -> str:
        """The trained name; it need not exist."""
        owned = _OWNED.fullmatch(name)
        if owned and owned[2] in self.sensors:
            name = f"{owned[1]}{self.sensors[owned[2]].like}{owned[3]}"
        dense = _DENSE.fullmatch(name)
        if dense and dense[2] in self.experts:
            expert = self.experts[dense[2]]
            experts = f"{dense[2]}.layer.deepspeed_moe.experts.deepspeed_experts"
            return f"{dense[1]}{experts}.{expert}.{dense[3]}"
        table = _TABLE.fullmatch(name)
        if table and name not in self.state:
            return table[1] + self._table(table[2])
        return name

    def _table(self, key: str) -> str:
        """The trained position table for a table of the model wanted; ``key`` if there is none."""
        for name, modality in self.target.modalities.items():
            if table_name(modality) == key and name in self.sensors:
                return table_name(self.source.modalities[self.sensors[name].like])
        return key


def _fit(
    value: Tensor,
    name: str,
    shape: torch.Size,
    *,
    sensors: Mapping[str, Sensor],
    bands: Mapping[str, Sequence[str]],
) -> tuple[Tensor, list[str]]:
    """Other bands for a tokenizer, another size for a position table, and notes about it.

    Args:
        value: the trained tensor.
        name: of the parameter wanted.
        shape: of the parameter wanted.
        sensors: as in ``adapt``.
        bands: as in ``adapt``.
    """
    tokenizer = _TOKENIZER.fullmatch(name)
    if tokenizer and tokenizer[1] in sensors:
        sensor = sensors[tokenizer[1]]
        if sensor.bands is not None:
            trained = bands[sensor.like]
            notes = band_notes(tokenizer[1], trained, sensor.bands)
            return adapt_bands(value, trained, sensor.bands), notes
    if _TABLE.fullmatch(name) and value.shape != shape:
        rows, columns = shape[:2]
        note = f"{name}: resized from {tuple(value.shape[:2])} to {(rows, columns)}"
        return resize(value, rows, columns), [note]
    return value, []


def kept_experts(spec: ModelSpec, expert: int, *, seed: int) -> dict[str, int]:
    """The expert that each MoE block of a model keeps, by the name of its block in the backbone.

    Args:
        spec: of the model with experts.
        expert: the one that all blocks keep; -1 draws one for each block.
        seed: of the draws.

    Raises:
        ModelError: the model has no experts.
    """
    if spec.moe is None:
        raise ModelError("expert: expected a trained model with experts, found none")
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for block in spec.moe.blocks:
        drawn = int(torch.randint(spec.moe.experts, (), generator=generator))
        kept[_feed_forward(spec, block)] = drawn if expert == RANDOM_EXPERT else expert
    return kept


def _feed_forward(spec: ModelSpec, block: int) -> str:
    """Name of the feed-forward network of a block, counted over all stages."""
    stage = 0
    while block >= spec.depths[stage]:
        block -= spec.depths[stage]
        stage += 1
    return f"backbone.stages.{stage}.blocks.{block}.ffn"


def adapt_bands(weight: Tensor, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """Make the kernels of a tokenizer fit other bands.

    A band of the same name keeps its kernel. An unknown band starts as the mean of all trained
    kernels. So an image whose additional bands hold their mean, zero after normalisation, gives the
    trained tokens.

    Args:
        weight: (D, old bands x p x p).
        old: names of the trained bands.
        new: names of the bands wanted.

    Returns:
        (D, new bands x p x p).
    """
    kernels = weight.unflatten(1, (len(old), -1))  # D C pp
    columns = []
    for band in new:
        if band in old:
            columns.append(kernels[:, old.index(band)])  # D pp
        else:
            columns.append(kernels.mean(1))  # D pp
    return torch.stack(columns, dim=1).flatten(1)  # D Cpp


def band_notes(name: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Say what ``adapt_bands`` did for the tokenizer ``name``; nothing if no band changed."""
    if list(old) == list(new):
        return []
    kept = [band for band in new if band in old]
    added = [band for band in new if band not in old]
    note = (
        f"tokenizer {name}: bands {' '.join(new)} from {' '.join(old)}; "
        f"kernels of {' '.join(kept) or 'none'} taken"
    )
    if added:
        note += f", {' '.join(added)} start as the mean of the trained kernels"
    return [note]


def summary(names: Sequence[str]) -> list[str]:
    """Group names by the module that they belong to, and count them."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        depth = 1
        if parts[0] in ("trunk", "heads", "tokenizers"):
            depth = 2
        module = ".".join(parts[:depth])
        counts[module] = counts.get(module, 0) + 1
    return [f"{module} ({count} tensors)" for module, count in counts.items()]
