"""What one run would use on this machine, and what it lacks."""

from pathlib import Path

from data.errors import InputError
from data.storage.local import OPEN_FILES
from data.stream.mixture import Mixture
from engine.config.load import Config
from engine.doctor.fact import MISSING, Fact, active, check, missing, off
from engine.doctor.machine import RANK_SHARED, bf16, device, has_gpu, open_files, shared_memory
from engine.doctor.packages import GUIDE, INSTALL, op_obstacle, tutel_obstacle, version
from engine.errors import ConfigError
from engine.training.inputs import check_regions, text_problem
from models.kernels.dispatch import survey
from models.layer_norm import apex_obstacle
from models.recompute import NONE

SPARE_FILES = 256  # of libraries, sockets and logs


def choices(config: Config) -> list[Fact]:
    """What the configuration chooses, and whether this machine can run it.

    Looks at nothing outside this process.
    """
    return [
        _optimizer(config),
        _precision(config),
        _experts(config),
        _layer_norm(config),
        _kernels(),
        _checkpointing(config),
    ]


def needs(config: Config, *, ranks: int, local_ranks: int) -> list[Fact]:
    """``choices``, and what else a run needs.

    Args:
        config: of the run.
        ranks: of the run.
        local_ranks: of these, on this machine.
    """
    facts = choices(config)
    if not config.optimizer.torch_adam:
        fused_adam = check(
            "op fused_adam",
            op_obstacle("fused_adam"),
            reason="for the optimizer",
            advice="see compilers, or set optimizer.params.torch_adam=true",
        )
        facts.append(fused_adam)
    facts.append(_text(config))
    facts.append(_data(config))
    facts += _limits(local_ranks=local_ranks)
    return facts


def _optimizer(config: Config) -> Fact:
    """Which AdamW DeepSpeed 0.19.8 makes of the configuration.

    See ``get_optimizer_configuration`` of its engine.
    """
    if not config.optimizer.torch_adam:
        return active("optimizer", "DeepSpeed's FusedAdam")
    if config.optimizer.fused:
        return active("optimizer", "torch's fused AdamW")
    advice = ""
    if has_gpu():
        advice = "optimizer.params.fused=true makes one kernel of it"
    return active("optimizer", "torch's AdamW, not fused", advice)


def _precision(config: Config) -> Fact:
    """bf16 or float32."""
    if not config.deepspeed.get("bf16", {}).get("enabled", False):
        advice = ""
        if has_gpu():
            advice = "bf16.enabled=true is several times faster"
        return active("precision", "float32", advice)
    units = bf16()
    reason = f"bf16, {units.reason}"
    if units.state == MISSING:
        return missing("precision", reason, units.advice)
    return active("precision", reason, units.advice)


def _experts(config: Config) -> Fact:
    """What sends the tokens to the experts."""
    moe = config.settings.model.moe
    if moe is None:
        return off("experts", "the model has none")
    if moe.implementation == "tutel":
        return check(
            "experts",
            tutel_obstacle(),
            reason="DeepSpeed's layer with Tutel's kernels",
            advice=f"{GUIDE}, or set skysense.model.moe.implementation=deepspeed",
        )
    if moe.implementation == "grouped":
        return active("experts", f"grouped products: {survey(device())['experts']}")
    return active("experts", f"DeepSpeed's layer, ep_size {config.settings.ep_size}")


def _layer_norm(config: Config) -> Fact:
    """What computes the layer norms."""
    if config.settings.layer_norm == "torch":
        return active("layer norm", "torch's")
    return check(
        "layer norm",
        apex_obstacle("fused_layer_norm_cuda"),
        reason="Apex's FusedLayerNorm",
        advice=f"{GUIDE}, or set skysense.layer_norm=torch",
    )


def _kernels() -> Fact:
    """The Triton kernels together; PyTorch replaces a kernel that cannot run."""
    outcomes = sorted(set(survey(device()).values()))
    reason = "; ".join(outcomes)
    if any(outcome.startswith("Triton") for outcome in outcomes):
        return active("kernels", reason)
    return off("kernels", reason)


def _checkpointing(config: Config) -> Fact:
    """Whether the backward pass computes activations again."""
    if config.settings.recompute == NONE:
        return off("activation checkpointing", "all activations are kept")
    return active("activation checkpointing", f"recompute {config.settings.recompute}")


def _text(config: Config) -> Fact:
    """The tower that embeds the class names."""
    text = config.settings.text
    if version("open_clip_torch") is None:
        return missing("text tower", "open_clip is not installed", INSTALL)
    if text_problem(config.settings) is not None:
        return missing(
            "text tower",
            f"{text.architecture}: no text.weights given",
            "give open_clip weights, or set skysense.text.random=true for a demonstration",
        )
    if text.weights is None:
        return off(
            "text tower",
            f"{text.architecture}, random: no text.weights given",
            "for a real run give open_clip weights",
        )
    obstacle = None
    if not Path(text.weights).is_file():
        obstacle = f"no file {text.weights}"
    return check(
        "text tower",
        obstacle,
        reason=f"{text.architecture}, {text.weights}",
        advice="correct skysense.text.weights",
    )


def _data(config: Config) -> Fact:
    """Whether the shards can be opened, and fit the model's regions."""
    try:
        dataset = Mixture.open(config.settings.data)
        check_regions(config.settings, dataset)
    except (InputError, ConfigError) as error:
        advice = "or correct skysense.data.shards"
        return missing("shards", str(error), advice)
    return active("shards", f"{len(dataset)} samples of {dataset.path}")


def _limits(*, local_ranks: int) -> list[Fact]:
    """Shared memory and open files that the ranks here need."""
    facts = [open_files(OPEN_FILES + SPARE_FILES)]
    if not has_gpu():
        need = local_ranks * RANK_SHARED
        facts.insert(0, shared_memory(need, f"needed by DeepSpeed for {local_ranks} CPU ranks"))
    return facts
