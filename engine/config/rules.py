"""What settings must satisfy together: each rule sees everything and answers with one line, or with
nothing."""

from data.suggest import suggest
from data.tiles.modalities import MODALITIES
from engine.config.settings import Settings
from models.layer_norm import IMPLEMENTATIONS
from models.recompute import BLOCKS, POLICIES
from models.spec import CELL_METRES

_AT_LEAST = {
    "seed": 0,
    "threads": 0,
    "ep_size": 1,
    "log_every": 1,
    "collect_garbage_every": 0,
    "data.workers": 0,
    "data.prefetch": 1,
    "data.max_bad_samples": 0,
    "checkpoint.every": 1,
    "checkpoint.keep": 1,
    "schedule.steps": 1,
    "loss.teacher_temperature_warmup": 0,
    "loss.freeze_last_layer": 0,
    "loss.sinkhorn_iterations": 1,
    "loss.clusters": 2,
    "model.queries": 1,
    "model.head.prototypes": 2,
    "model.head.layers": 1,
    "guard.patience": 1,
}
_POSITIVE = (
    "loss.student_temperature",
    "loss.teacher_temperature",
    "loss.teacher_temperature_start",
    "loss.text_temperature",
    "loss.cluster_epsilon",
    "guard.spike",
)
_SHARES = ("loss.centre_momentum", "schedule.ema_start", "schedule.ema_end")


def problems(settings: Settings, deepspeed: dict, world_size: int | None):
    """Yields every rule's complaint, as ``place: expected, found, what to do``.

    Args:
        settings: the parsed ``skysense`` object.
        deepspeed: DeepSpeed's keys, already of the right names and types.
        world_size: ranks of this run; None leaves out what depends on it.
    """
    yield from _ranges(settings)
    yield from _modalities(settings)
    yield from _geometry(settings)
    yield from _experts(settings, world_size)
    yield from _layer_norm(settings)
    yield from _recompute(settings)
    yield from _batch(deepspeed, world_size)
    yield from _optimizer(deepspeed)
    yield from _precision(deepspeed)
    yield from _zero(deepspeed, settings)


def _value(settings, dotted: str):
    """The setting at a dotted path."""
    for name in dotted.split("."):
        settings = getattr(settings, name)
    return settings


def _ranges(settings: Settings):
    """Numbers that no run can use."""
    for dotted, least in _AT_LEAST.items():
        if _value(settings, dotted) < least:
            yield f"skysense.{dotted}: expected at least {least}, found {_value(settings, dotted)}"
    for dotted in _POSITIVE:
        if _value(settings, dotted) <= 0:
            yield f"skysense.{dotted}: expected a positive number, found {_value(settings, dotted)}"
    for dotted in _SHARES:
        if not 0 <= _value(settings, dotted) <= 1:
            yield f"skysense.{dotted}: expected a number from 0 to 1, found {_value(settings, dotted)}"


def _modalities(settings: Settings):
    """The loader must deliver exactly the sensors, bands, pixels and frames that the model is built
    for."""
    if not settings.model.modalities:
        yield f"skysense.model.modalities: expected at least one of {', '.join(MODALITIES)}, found none"
    for name, spec in settings.model.modalities.items():
        place = f"skysense.model.modalities.{name}"
        if name not in MODALITIES:
            yield f"{place}: data/tiles/modalities.py has no such sensor{suggest(name, MODALITIES)}"
            continue
        for mine, theirs, what in (
            (spec.bands, len(MODALITIES[name].bands), "bands"),
            (spec.pixels_per_cell, MODALITIES[name].pixels, "pixels_per_cell"),
        ):
            if mine != theirs:
                yield f"{place}.{what}: expected {theirs}, as data/tiles/modalities.py has it, found {mine}"
    model = {name: spec.frames for name, spec in settings.model.modalities.items()}
    if settings.data.frames != model:
        yield (
            f"skysense.data.frames: expected the frames of skysense.model.modalities, {model}, "
            f"found {settings.data.frames}; make them equal"
        )


def _geometry(settings: Settings):
    """Every view must come out of patching, merging and fusion as whole cells."""
    model, views = settings.model, settings.data.views
    if model.fusion is None:
        yield "skysense.model.fusion: expected a fusion transformer, whose output most losses read, found null; set it"
        return
    for name in ("global_cells", "local_cells"):
        cells = getattr(views, name)
        for modality, spec in model.modalities.items():
            unit = model.patch * 2 ** sum(spec.merge)
            if cells * spec.pixels_per_cell % unit:
                yield (
                    f"skysense.data.views.{name}: {cells} cells are {cells * spec.pixels_per_cell} pixels of "
                    f"{modality}, expected a multiple of {unit} (patch and merges); change the cells"
                )
        if cells * CELL_METRES % model.fusion.cell_metres:
            yield (
                f"skysense.model.fusion.cell_metres: expected a divisor of the {cells * CELL_METRES:g} m of "
                f"data.views.{name}, found {model.fusion.cell_metres:g}; change one of them"
            )


def _experts(settings: Settings, world_size: int | None):
    """Experts and ranks must both divide into expert-parallel groups."""
    moe, ep_size = settings.model.moe, settings.ep_size
    if moe is not None and settings.init.expert is not None:
        yield "skysense.init.expert: expected skysense.model.moe null, since one expert becomes a plain network"
    if moe is None and ep_size != 1:
        yield f"skysense.ep_size: expected 1 because the model has no experts, found {ep_size}"
    if moe is not None and moe.experts % ep_size:
        yield f"skysense.ep_size: expected a divisor of the {moe.experts} experts, found {ep_size}"
    if moe is not None and moe.implementation == "grouped" and ep_size != 1:
        yield (
            f"skysense.model.moe.implementation: 'grouped' expected all experts on every rank (skysense.ep_size 1), "
            f"found ep_size {ep_size}; set 'deepspeed'"
        )
    if world_size is not None and world_size % ep_size:
        yield (
            f"skysense.ep_size: expected a divisor of the {world_size} ranks of this run, found {ep_size}; "
            f"change it or the number of ranks"
        )


def _layer_norm(settings: Settings):
    """A name only: whether Apex is here is asked where a model is built, so that its run can be
    read elsewhere."""
    if settings.layer_norm not in IMPLEMENTATIONS:
        yield f"skysense.layer_norm: expected one of {', '.join(IMPLEMENTATIONS)}, found {settings.layer_norm!r}"


def _recompute(settings: Settings):
    """A known way of activation checkpointing, with checkpointing on, and without what it cannot
    see into."""
    if settings.recompute not in POLICIES:
        yield f"skysense.recompute: expected one of {', '.join(POLICIES)}, found {settings.recompute!r}"
    elif settings.recompute != BLOCKS and not settings.activation_checkpointing:
        yield (
            f"skysense.recompute: {settings.recompute!r} expected skysense.activation_checkpointing true, found "
            "false; set it"
        )
    elif settings.recompute == "pointwise" and settings.compile:
        yield (
            "skysense.recompute: 'pointwise' expected skysense.compile false, found true; it cannot choose inside "
            "compiled regions, set one of them back"
        )


def _batch(deepspeed: dict, world_size: int | None):
    """``train_batch_size`` is the one owner; the share of a rank follows from it."""
    batch = deepspeed.get("train_batch_size")
    if batch is None or batch < 1:
        yield f"train_batch_size: expected the samples of a step over all ranks, found {batch or 'nothing'}; set it"
        return
    if deepspeed.get("gradient_accumulation_steps", 1) != 1:
        yield (
            f"gradient_accumulation_steps: expected 1 because batch statistics are over one call, "
            f"found {deepspeed['gradient_accumulation_steps']}; use a smaller batch or more ranks"
        )
    if world_size is None:
        return
    if batch % world_size:
        yield (
            f"train_batch_size: expected a multiple of the {world_size} ranks of this run, found {batch}; "
            f"the nearest are {max(1, batch // world_size) * world_size} and "
            f"{(batch // world_size + 1) * world_size}"
        )
        return
    micro = deepspeed.get("train_micro_batch_size_per_gpu")
    if micro is not None and micro != batch // world_size:
        yield (
            f"train_micro_batch_size_per_gpu: expected {batch // world_size} (train_batch_size {batch} over "
            f"{world_size} ranks), found {micro}; leave it out"
        )


def _optimizer(deepspeed: dict):
    """AdamW, with the two values that the schedules start from."""
    optimizer = deepspeed.get("optimizer", {})
    if str(optimizer.get("type", "")).lower() != "adamw":
        yield f'optimizer.type: expected "AdamW", found {optimizer.get("type", "nothing")!r}'
    params = optimizer.get("params", {})
    for name, above in (("lr", True), ("weight_decay", False)):
        value = params.get(name)
        if value is None or value < 0 or (above and value == 0):
            yield f"optimizer.params.{name}: expected a {'positive ' * above}number, found {value}; set it"
    betas = params.get("betas", [0.9, 0.999])
    numbers = all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas)
    if len(betas) != 2 or not numbers:
        yield f"optimizer.params.betas: expected two numbers from 0 to below 1, found {betas}"
    if deepspeed.get("gradient_clipping", 1.0) <= 0:
        yield f"gradient_clipping: expected a positive number, found {deepspeed['gradient_clipping']}; or leave it out"


def _precision(deepspeed: dict):
    """A step with a NaN must be skipped on every rank, which DeepSpeed does only when asked to
    look."""
    bf16 = deepspeed.get("bf16", {})
    if bf16.get("check_grad_overflow", True) is False:
        yield "bf16.check_grad_overflow: expected true, found false; without it a NaN reaches the weights"
    if bf16.get("immediate_grad_update", False):
        yield "bf16.immediate_grad_update: expected false, found true; it belongs to another optimizer; remove it"


def _zero(deepspeed: dict, settings: Settings):
    """ZeRO stage 2: the teacher lives on its partitions, and experts need its gradient layout."""
    zero = deepspeed.get("zero_optimization", {})
    if zero.get("stage", 0) != 2:
        yield (
            f"zero_optimization.stage: expected 2 (the teacher is kept on its partitions; stage 3 has no experts), "
            f"found {zero.get('stage', 0)}"
        )
    for name in ("reduce_scatter", "contiguous_gradients"):
        if settings.model.moe is not None and zero.get(name, True) is False:
            yield f"zero_optimization.{name}: expected true because the model has experts, found false"
