"""Trained weights for another specification: some modules, other bands, other sensors, other
merges, one expert."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from models.backbone.position import resize, table_name
from models.errors import ModelError
from models.spec import ModelSpec

# What in the name of a parameter names its modality, its block or its table.
_OWNED = re.compile(r"(.*\b(?:tokenizers|tokens|projections|heads)\.)([^.]+)(\..*|)")
_DENSE = re.compile(r"(trunk\.|)(backbone\..*\.ffn)\.(fc[12]\..*)")
_TOKENIZER = re.compile(r".*\btokenizers\.([^.]+)\.projection\.weight")
_TABLE = re.compile(r"(.*\.positions\.tables\.)([^.]+)")
RANDOM_EXPERT = -1


@dataclass(frozen=True)
class Sensor:
    """A sensor that starts from a trained one: its tokenizer, prompts, merges and fusion
    projection."""

    like: str
    bands: tuple[str, ...] | None = None  # in the order of the images; None: those of ``like``
    pixels_per_cell: int | None = None  # pixels along 10 m; None: those of ``like``


@dataclass(frozen=True)
class Choice:
    """What of a trained model is wanted, and how (supplement, section B and tables 8, 10, 14)."""

    modalities: Sequence[str] | Mapping[str, Sensor] | None = None  # None: all
    fusion: bool = True  # the temporal and multi-modal fusion transformer
    context: bool = True  # geo-context prototypes; only with fusion
    prompts: bool = True
    merge: Mapping[str, tuple[bool, bool, bool]] = field(
        default_factory=dict
    )  # modality -> after stages 1, 2, 3
    fixed_gate: bool = False  # the routing gates do not train
    expert: int | None = (
        None  # keep this expert of each mixture as a plain network; -1: a random one a block
    )
    seed: int = 0  # of the random expert

    def sensors(self, spec: ModelSpec) -> dict[str, Sensor]:
        """The sensors wanted, by name. Raises ModelError for one that the trained model does not
        have."""
        chosen = list(spec.modalities) if self.modalities is None else self.modalities
        if not isinstance(chosen, Mapping):
            chosen = {name: Sensor(name) for name in chosen}
        unknown = sorted({sensor.like for sensor in chosen.values()} - set(spec.modalities))
        if unknown or not chosen:
            raise ModelError(
                f"modalities: expected some of the trained ones, {', '.join(spec.modalities)}, found "
                f"{', '.join(unknown) or 'none'}; a new sensor says which of them it is like"
            )
        return dict(chosen)

    def specification(self, spec: ModelSpec) -> ModelSpec:
        """The specification of the model wanted, from that of the trained one. Raises ModelError."""
        sensors, modalities = self.sensors(spec), {}
        strange = sorted(set(self.merge) - set(sensors))
        if strange:
            raise ModelError(
                f"merge: expected some of the modalities {', '.join(sensors)}, found {', '.join(strange)}"
            )
        for name, sensor in sensors.items():
            like = spec.modalities[sensor.like]
            modalities[name] = replace(
                like,
                bands=len(sensor.bands) if sensor.bands else like.bands,
                pixels_per_cell=sensor.pixels_per_cell or like.pixels_per_cell,
                merge=tuple(self.merge.get(name, like.merge)),
            )
        moe = spec.moe
        if self.expert is not None:
            if moe is None or not RANDOM_EXPERT <= self.expert < moe.experts:
                raise ModelError(
                    f"expert: expected one of {moe.experts if moe else 'no'} experts, or -1 for a random "
                    f"one, found {self.expert}"
                )
            moe = None
        elif moe is not None:
            moe = replace(moe, fixed_gate=self.fixed_gate)
        return spec.variant(
            modalities=modalities,
            moe=moe,
            prompts=spec.prompts if self.prompts else (0,) * len(spec.prompts),
            fusion=spec.fusion if self.fusion else None,
            context=spec.context if self.fusion and self.context else None,
        )


@dataclass
class Adapted:
    """Weights under the names of the model wanted."""

    state: dict[str, Tensor]
    missing: list[str]  # names without a trained value
    unused: list[str]  # trained names that nothing asked for
    notes: list[str]  # what was changed on the way, a line each

    def report(self) -> list[str]:
        """Lines for the log."""
        lines = [f"{len(self.state)} tensors taken from the trained model"] + self.notes
        lines += [f"left out: {line}" for line in summary(self.unused)]
        return lines + [f"without a trained value: {line}" for line in summary(self.missing)]


def adapt(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, torch.Size],
    source: ModelSpec,
    target: ModelSpec,
    sensors: Mapping[str, Sensor],
    bands: Mapping[str, Sequence[str]],
    expert: int | None = None,
    seed: int = 0,
) -> Adapted:
    """Trained values for the parameters and buffers of another model.

    ``state``: trained tensors by name. ``wanted``: names and shapes of the other model. ``source``
    and ``target``: their specifications. ``sensors``: the other model's, by name; ``bands``: band
    names of the trained modalities. ``expert``: which one becomes a dense network where ``target``
    has no mixture, -1 for a random one a block.

    A name without a trained value of its shape is reported as missing, never invented.
    """
    found, used, notes = {}, set(), []
    experts = {} if expert is None else kept_experts(source, expert, seed)
    for name, shape in wanted.items():
        origin = _owner(name, sensors)
        dense, table = _DENSE.fullmatch(origin), _TABLE.fullmatch(origin)
        if dense and dense[2] in experts:
            kept = f"{dense[2]}.layer.deepspeed_moe.experts.deepspeed_experts.{experts[dense[2]]}"
            origin = f"{dense[1]}{kept}.{dense[3]}"
        elif table and origin not in state:
            origin = table[1] + _trained_table(table[2], source, target, sensors)
        if origin not in state:
            continue
        value = state[origin]
        tokenizer = _TOKENIZER.fullmatch(name)
        if tokenizer and tokenizer[1] in sensors and sensors[tokenizer[1]].bands:
            sensor = sensors[tokenizer[1]]
            value = adapt_bands(value, bands[sensor.like], sensor.bands)
            notes += band_notes(tokenizer[1], bands[sensor.like], sensor.bands)
        elif table and value.shape != shape:
            notes.append(f"{name}: resized from {tuple(value.shape[:2])} to {tuple(shape[:2])}")
            value = resize(value, *shape[:2])
        if value.shape == shape:
            found[name] = value
            used.add(origin)
    notes += [
        f"{block}: expert {kept} of {source.moe.experts} as a plain network, without its gate"
        for block, kept in experts.items()
    ]
    missing = [name for name in wanted if name not in found]
    return Adapted(found, missing, [name for name in state if name not in used], notes)


def kept_experts(spec: ModelSpec, expert: int, seed: int) -> dict[str, int]:
    """The expert that each mixture of a model keeps, by the block's name in the backbone; -1 draws
    one a block."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for block in spec.moe.blocks:
        stage = next(i for i in range(len(spec.depths)) if block < sum(spec.depths[: i + 1]))
        drawn = int(torch.randint(spec.moe.experts, (), generator=generator))
        place = f"backbone.stages.{stage}.blocks.{block - sum(spec.depths[:stage])}.ffn"
        kept[place] = drawn if expert == RANDOM_EXPERT else expert
    return kept


def adapt_bands(weight: Tensor, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """Columns of a tokenizer (D, old bands x p x p) for other bands: (D, new bands x p x p).

    A band of the same name keeps its kernel. An unknown one starts as the mean of all trained
    kernels. So an image whose additional bands hold their mean, zero after normalisation, gives the
    trained tokens.
    """
    kernels = weight.unflatten(1, (len(old), -1))  # D C pp
    columns = [kernels[:, old.index(band)] if band in old else kernels.mean(1) for band in new]
    return torch.stack(columns, dim=1).flatten(1)  # D Cpp


def band_notes(name: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    """What ``adapt_bands`` did, in words; nothing if the bands are the same."""
    if list(old) == list(new):
        return []
    kept, added = [band for band in new if band in old], [band for band in new if band not in old]
    note = f"tokenizer {name}: bands {' '.join(new)} from {' '.join(old)}; kernels of {' '.join(kept) or 'none'} taken"
    return [
        note + (f", {' '.join(added)} start as the mean of the trained kernels" if added else "")
    ]


def summary(names: Sequence[str]) -> list[str]:
    """Names grouped by what they belong to, with their number."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        head = ".".join(parts[: 2 if parts[0] in ("trunk", "heads", "tokenizers") else 1])
        counts[head] = counts.get(head, 0) + 1
    return [f"{head} ({count} tensors)" for head, count in counts.items()]


def _owner(name: str, sensors: Mapping[str, Sensor]) -> str:
    """The trained name of a parameter that a sensor owns; other names stay."""
    owned = _OWNED.fullmatch(name)
    if owned is None or owned[2] not in sensors:
        return name
    return f"{owned[1]}{sensors[owned[2]].like}{owned[3]}"


def _trained_table(
    key: str, source: ModelSpec, target: ModelSpec, sensors: Mapping[str, Sensor]
) -> str:
    """The trained position table that stands for a table of the other model; the same name if there
    is none."""
    owners = [
        name
        for name, modality in target.modalities.items()
        if table_name(modality) == key and name in sensors
    ]
    return table_name(source.modalities[sensors[owners[0]].like]) if owners else key
