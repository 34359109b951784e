"""What settings must satisfy together.

Each rule sees everything and yields one line for each thing that is wrong, as
``place: expected, found, what to do``.
"""

from collections.abc import Iterator

from torch.nn import ModuleDict

from data.suggest import suggest
from data.tiles.modalities import MODALITIES, UNMEASURED
from engine.config.settings import Settings
from models.recompute import NONE, POINTWISE
from models.spec import ModalitySpec


def problems(settings: Settings, deepspeed: dict, world_size: int | None) -> Iterator[str]:
    """Every complaint of every rule.

    Args:
        settings: The parsed ``skysense`` object.
        deepspeed: DeepSpeed's keys, already with the right names and types.
        world_size: Number of ranks of this run. None leaves out what depends on it.
    """
    yield from _sections(settings)
    yield from _ranges(settings)
    yield from _modalities(settings)
    yield from _geometry(settings)
    yield from _experts(settings, world_size)
    yield from _recompute(settings)
    yield from _batch(deepspeed, world_size)
    yield from _optimizer(deepspeed)
    yield from _precision(deepspeed)
    yield from _zero(deepspeed, settings)


def _sections(settings: Settings) -> Iterator[str]:
    """What a section says about itself."""
    sections = (
        ("skysense.data", settings.data.views),
        ("skysense.data", settings.data.augment),
        ("skysense.data", settings.data.store),
        ("skysense", settings.data),
        ("skysense", settings.schedule),
        ("skysense", settings.guard),
        ("skysense", settings.evaluate),
        ("skysense", settings.init),
    )
    for above, section in sections:
        problem = section.problem()
        if problem is not None:
            yield f"{above}.{problem}"


def _ranges(settings: Settings) -> Iterator[str]:
    """Numbers of the loader and the model that no run can use."""
    least = (
        ("data.workers", settings.data.workers, 0),
        ("data.prefetch", settings.data.prefetch, 1),
        ("data.max_bad_samples", settings.data.max_bad_samples, 0),
        ("model.queries", settings.model.queries, 1),
        ("model.head.prototypes", settings.model.head.prototypes, 2),
        ("model.head.layers", settings.model.head.layers, 1),
    )
    for place, value, smallest in least:
        if value < smallest:
            yield f"skysense.{place}: expected at least {smallest}, found {value}"


def _modalities(settings: Settings) -> Iterator[str]:
    """The loader must deliver exactly the sensors, bands and frames of the model."""
    modalities = settings.model.modalities
    if not modalities:
        yield (
            "skysense.model.modalities: expected at least one of "
            f"{', '.join(MODALITIES)}, found none"
        )
    for name, spec in modalities.items():
        yield from _modality(name, spec)
    frames = {name: spec.frames for name, spec in modalities.items()}
    if settings.data.frames != frames:
        yield (
            f"skysense.data.frames: expected the frames of skysense.model.modalities, {frames}, "
            f"found {settings.data.frames}; make them equal"
        )


def _modality(name: str, spec: ModalitySpec) -> Iterator[str]:
    """One sensor of the model against the table of sensors."""
    place = f"skysense.model.modalities.{name}"
    if name not in MODALITIES:
        yield (
            f"{place}: neither the program nor the dataset has such a sensor"
            f"{suggest(name, MODALITIES)}"
        )
        return
    sensor = MODALITIES[name]
    bands = len(sensor.bands)
    if spec.bands != bands:
        yield f"{place}.bands: expected {bands} ({', '.join(sensor.bands)}), found {spec.bands}"
    if hasattr(ModuleDict, name):
        yield f"{place}: torch keeps the name {name!r} for itself; give the sensor another key"
    if not sensor.is_measured:
        yield f"{place}: expected its mean and std, {UNMEASURED}"


def _geometry(settings: Settings) -> Iterator[str]:
    """Every view must come out of patching and merging as whole tokens."""
    if settings.model.fusion is None:
        yield (
            "skysense.model.fusion: expected a fusion transformer, whose output most losses read, "
            "found null; set it"
        )
        return
    patch = settings.model.patch
    for name, size in settings.data.views.sizes.items():
        for modality, spec in settings.model.modalities.items():
            merges = sum(spec.merge)
            unit = patch * 2**merges
            side = size.pixels[modality]
            if side % unit:
                lower = max(unit, side // unit * unit)
                upper = (side // unit + 1) * unit
                yield (
                    f"skysense.data.views.{name}_pixels.{modality}: expected a multiple of {unit} "
                    f"(patches of {patch} pixels, {merges} merges), found {side}; the nearest are "
                    f"{lower} and {upper}"
                )


def _experts(settings: Settings, world_size: int | None) -> Iterator[str]:
    """Experts and ranks must both divide into expert-parallel groups."""
    moe = settings.model.moe
    ep_size = settings.ep_size
    if moe is None and ep_size != 1:
        yield f"skysense.ep_size: expected 1 because the model has no experts, found {ep_size}"
    if moe is not None and settings.init.expert is not None:
        yield (
            "skysense.init.expert: expected skysense.model.moe null, "
            "since one expert becomes a plain network"
        )
    if moe is not None and moe.experts % ep_size:
        yield f"skysense.ep_size: expected a divisor of the {moe.experts} experts, found {ep_size}"
    if moe is not None and moe.implementation == "grouped" and ep_size != 1:
        yield (
            "skysense.model.moe.implementation: 'grouped' expected all experts on every rank "
            f"(skysense.ep_size 1), found ep_size {ep_size}; set 'deepspeed'"
        )
    if world_size is not None and world_size % ep_size:
        yield (
            f"skysense.ep_size: expected a divisor of the {_ranks(world_size)} of this run, "
            f"found {ep_size}; start {ep_size} ranks (deepspeed --num_gpus {ep_size}) or a "
            f"multiple, or set skysense.ep_size=1"
        )


def _ranks(count: int) -> str:
    """ "1 rank", "2 ranks"."""
    if count == 1:
        return "1 rank"
    return f"{count} ranks"


def _recompute(settings: Settings) -> Iterator[str]:
    """Selective recomputation cannot see into compiled regions."""
    if settings.recompute == POINTWISE and settings.compile:
        yield (
            f"skysense.recompute: '{POINTWISE}' expected skysense.compile false, found true; "
            f"it cannot choose inside compiled regions; set compile=false or recompute={NONE}"
        )


def _batch(deepspeed: dict, world_size: int | None) -> Iterator[str]:
    """``train_batch_size`` is the one owner; the share of a rank follows from it."""
    batch = deepspeed.get("train_batch_size")
    if batch is None:
        yield "train_batch_size: expected the samples of a step over all ranks, found nothing"
        return
    if batch < 1:
        yield f"train_batch_size: expected the samples of a step over all ranks, found {batch}"
        return
    accumulation = deepspeed.get("gradient_accumulation_steps", 1)
    if accumulation != 1:
        yield (
            "gradient_accumulation_steps: expected 1 because batch statistics are over one call, "
            f"found {accumulation}; use a smaller batch or more ranks"
        )
    if world_size is None:
        return
    share, rest = divmod(batch, world_size)
    if rest:
        lower = max(1, share) * world_size
        upper = (share + 1) * world_size
        yield (
            f"train_batch_size: expected a multiple of the {_ranks(world_size)} of this run, "
            f"found {batch}; the nearest are {lower} and {upper}"
        )
        return
    micro = deepspeed.get("train_micro_batch_size_per_gpu", share)
    if micro != share:
        yield (
            f"train_micro_batch_size_per_gpu: expected {share} (train_batch_size {batch} over "
            f"{_ranks(world_size)}), found {micro}; leave it out"
        )


def _optimizer(deepspeed: dict) -> Iterator[str]:
    """AdamW with clipping, or without."""
    kind = deepspeed.get("optimizer", {}).get("type", "nothing")
    if kind.lower() != "adamw":
        yield f'optimizer.type: expected "AdamW", found {kind!r}'
    clipping = deepspeed.get("gradient_clipping", 1.0)
    if clipping <= 0:
        yield f"gradient_clipping: expected a positive number, found {clipping}; or leave it out"


def _precision(deepspeed: dict) -> Iterator[str]:
    """A NaN must skip the step on every rank. DeepSpeed does so only with its overflow check."""
    bf16 = deepspeed.get("bf16", {})
    if not bf16.get("check_grad_overflow", True):
        yield (
            "bf16.check_grad_overflow: expected true, found false; "
            "without it a NaN reaches the weights"
        )
    if bf16.get("immediate_grad_update", False):
        yield (
            "bf16.immediate_grad_update: expected false, found true; "
            "it belongs to another optimizer; remove it"
        )


def _zero(deepspeed: dict, settings: Settings) -> Iterator[str]:
    """ZeRO stage 2: the teacher lives on its partitions, and experts need its gradient layout."""
    zero = deepspeed.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage != 2:
        yield (
            "zero_optimization.stage: expected 2 (the teacher is kept on its partitions; stage 3 "
            f"has no experts), found {stage}"
        )
    if settings.model.moe is None:
        return
    for name in ("reduce_scatter", "contiguous_gradients"):
        if not zero.get(name, True):
            yield (
                f"zero_optimization.{name}: expected true because the model has experts, "
                "found false"
            )
