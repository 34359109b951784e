"""What one run would use on this machine, and what it lacks."""

from pathlib import Path

from torch import Tensor

from data.errors import InputError
from data.storage.local import OPEN_FILES
from data.stream.collate import empty_batch
from data.stream.mixture import Mixture
from data.stream.sample import Batch
from engine.config.load import Config
from engine.doctor.fact import ACTIVE, MISSING, OFF, Fact, found
from engine.doctor.machine import GIB, RANK_SHARED, bf16, device, has_gpu, open_files, shared_memory
from engine.doctor.packages import GUIDE, op_obstacle, optional, tutel_obstacle
from engine.errors import ConfigError
from engine.training.inputs import check_regions
from models.kernels.dispatch import survey
from models.layer_norm import apex_obstacle
from models.recompute import NONE

SPARE_FILES = 256  # of libraries, sockets and logs


def choices(config: Config) -> list[Fact]:
    """What the configuration chooses and this machine can or cannot run; looks at nothing outside
    this process."""
    settings = config.settings
    checkpointing = (
        Fact("activation checkpointing", ACTIVE, f"recompute {settings.recompute}")
        if settings.recompute != NONE
        else Fact("activation checkpointing", OFF, "all activations are kept")
    )
    return [
        _optimizer(config),
        _precision(config),
        _experts(config),
        _layer_norm(config),
        _kernels(),
        checkpointing,
    ]


def needs(config: Config, ranks: int, here: int) -> list[Fact]:
    """``choices``, and what else a run of ``ranks`` ranks needs, ``here`` of them on this machine."""
    facts = choices(config)
    if not _torch_adam(config):
        facts.append(
            found(
                "op fused_adam",
                op_obstacle("fused_adam"),
                "for the optimizer",
                "see compilers, or set optimizer.params.torch_adam=true",
            )
        )
    return [*facts, _text(config), _data(config), *_loader(config, ranks, here)]


def _torch_adam(config: Config) -> bool:
    return config.optimizer.torch_adam


def _optimizer(config: Config) -> Fact:
    """Which AdamW DeepSpeed 0.19.8 makes of the configuration (``get_optimizer_configuration`` of
    its engine)."""
    if not _torch_adam(config):
        return Fact("optimizer", ACTIVE, "DeepSpeed's FusedAdam")
    if config.optimizer.fused:
        return Fact("optimizer", ACTIVE, "torch's fused AdamW")
    return Fact(
        "optimizer",
        ACTIVE,
        "torch's AdamW, not fused",
        "optimizer.params.fused=true makes one kernel of it" if has_gpu() else "",
    )


def _precision(config: Config) -> Fact:
    """bf16 or float32."""
    if not config.deepspeed.get("bf16", {}).get("enabled", False):
        return Fact(
            "precision",
            ACTIVE,
            "float32",
            "bf16.enabled=true is several times faster" if has_gpu() else "",
        )
    units = bf16()
    return Fact(
        "precision",
        MISSING if units.state == MISSING else ACTIVE,
        f"bf16, {units.reason}",
        units.advice,
    )


def _experts(config: Config) -> Fact:
    """Who sends the tokens to the experts."""
    moe = config.settings.model.moe
    if moe is None:
        return Fact("experts", OFF, "the model has none")
    if moe.implementation == "tutel":
        return found(
            "experts",
            tutel_obstacle(),
            "DeepSpeed's layer with Tutel's kernels",
            f"{GUIDE}, or set skysense.model.moe.implementation=deepspeed",
        )
    if moe.implementation == "grouped":
        return Fact("experts", ACTIVE, f"grouped products: {survey(device())['experts']}")
    return Fact("experts", ACTIVE, f"DeepSpeed's layer, ep_size {config.settings.ep_size}")


def _layer_norm(config: Config) -> Fact:
    """Who computes the layer norms."""
    if config.settings.layer_norm == "torch":
        return Fact("layer norm", ACTIVE, "torch's")
    return found(
        "layer norm",
        apex_obstacle("fused_layer_norm_cuda"),
        "Apex's FusedLayerNorm",
        f"{GUIDE}, or set skysense.layer_norm=torch",
    )


def _kernels() -> Fact:
    """The Triton kernels together; a kernel that cannot run is replaced by its reference."""
    outcomes = sorted(set(survey(device()).values()))
    return Fact(
        "kernels",
        ACTIVE if any(outcome.startswith("Triton") for outcome in outcomes) else OFF,
        "; ".join(outcomes),
    )


def _text(config: Config) -> Fact:
    """The tower that embeds the class names."""
    text = config.settings.text
    library = optional("open_clip", "open_clip_torch", "", "make install")
    if library.state == MISSING:
        return Fact("text tower", MISSING, "open_clip is not installed", library.advice)
    if text.weights is None:
        return Fact(
            "text tower",
            OFF,
            f"{text.architecture}, random: no text.weights given",
            "for a real run give open_clip weights",
        )
    lacks = None if Path(text.weights).is_file() else f"no file {text.weights}"
    return found(
        "text tower", lacks, f"{text.architecture}, {text.weights}", "correct skysense.text.weights"
    )


def _data(config: Config) -> Fact:
    """Whether the shards can be opened, and fit the model's regions."""
    try:
        dataset = Mixture.open(config.settings.data)
        check_regions(config.settings, dataset)
    except (InputError, ConfigError) as error:
        return Fact("shards", MISSING, str(error))
    return Fact("shards", ACTIVE, f"{len(dataset)} samples of {dataset.path}")


def _loader(config: Config, ranks: int, here: int) -> list[Fact]:
    """Shared memory and open files of the ranks here and their loaders, whose batches wait in
    shared memory."""
    data = config.settings.data
    tensors = _tensors(empty_batch(0, 1, data))
    samples = config.batch_size // ranks
    waiting = data.workers * data.prefetch  # batches of a rank
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors) * samples * waiting
    own = 0 if has_gpu() else RANK_SHARED
    text = f"for {here} rank{'s' * (here > 1)} here: {waiting} batches of {samples} samples each"
    return [
        shared_memory(
            here * (size + own), text + f", {own / GIB:.2f} GiB of DeepSpeed's a rank" * bool(own)
        ),
        open_files(len(tensors) * waiting + OPEN_FILES + SPARE_FILES),
    ]


def _tensors(batch: Batch) -> list[Tensor]:
    """Every tensor of a batch."""
    parts = [batch.region, *batch.days.values()]
    for views in batch.views.values():
        parts += [*views.images.values(), *views.valid.values(), views.labels, views.affine]
    return parts
