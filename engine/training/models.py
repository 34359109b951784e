"""Student and teacher of a run, with the first weights that its seed gives."""

from dataclasses import dataclass

from torch import nn

from engine.config.settings import Settings
from models.initialise import initialise
from models.layer_norm import layer_norm_class, use_layer_norm
from models.moe.layer import MoE, canonical_names
from models.pretraining.compiled import compile_regions, describe_regions
from models.pretraining.model import Pretraining
from models.reducer import Reducer
from models.spec import ModelSpec

# Names of modules or parameters that hold rows of a table.
TABLES = frozenset({"tokens", "tables", "queries", "day"})
POSITION_BIAS = "bias_net"  # the network that computes a table of the position bias


@dataclass(frozen=True)
class Pair:
    """The two models of self-distillation."""

    student: Pretraining
    teacher: Pretraining


def build_pair(settings: Settings, reducer: Reducer, *, empty: bool = False) -> Pair:
    """Student and teacher with equal first weights, on the CPU in float32.

    The weights follow from the seed alone: neither the world size nor ``ep_size`` changes them.

    Args:
        settings: The run's settings.
        reducer: Collectives over the global batch.
        empty: The weights get no values. So the models may lie on the meta device.

    Raises:
        ModelError: The settings ask for a layer norm that is not installed.
    """
    student = _build(settings, reducer, empty=empty)
    teacher = _build(settings, reducer, empty=empty)
    return Pair(student, teacher.eval().requires_grad_(False))


def _build(settings: Settings, reducer: Reducer, *, empty: bool) -> Pretraining:
    """One model, initialised unless it stays empty."""
    layer_norm = layer_norm_class(settings.layer_norm)
    model = Pretraining(
        settings.model, ep_size=settings.ep_size, reducer=reducer, recompute=settings.recompute
    )
    names = canonical_names(model)

    def canonical_name(name: str) -> str:
        return names.get(name, name)

    if not empty:
        initialise(model, settings.seed, canonical_name, std=settings.model.initial_std)
    use_layer_norm(model, layer_norm)
    if settings.compile:
        compile_regions(model)
    return model


def share_context(student: Pretraining, teacher: Pretraining) -> None:
    """Let the teacher read the student's prototypes.

    Both read them, and only the student's branch updates them (supplement, A.3).
    """
    if student.trunk.context is not None and teacher.trunk.context is not None:
        teacher.trunk.context.prototypes = student.trunk.context.prototypes


def is_no_decay(name: str, parameter: nn.Parameter, spec: ModelSpec) -> bool:
    """Whether a parameter has no weight decay.

    Decay spares biases and norms, and all that is looked up rather than multiplied: tokens,
    prompts, queries, position and day tables. So it spares the network of the position bias, as
    Swin V2 does, which stands for a table. A fixed gate would shrink by it.
    """
    parts = name.split(".")
    if spec.moe is not None and spec.moe.fixed_gate and ".gate." in name:
        return True
    return parameter.ndim < 2 or POSITION_BIAS in parts or not TABLES.isdisjoint(parts)


def is_last_layer(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter holds the prototypes of a projection head, which a warm-up freezes."""
    return name.endswith(".last.weight")


def describe(model: Pretraining) -> list[str]:
    """Lines for the log: which paths are active, and the size of the model in this process."""
    count = sum(parameter.numel() for parameter in model.parameters())
    lines = [f"model: {count / 1e6:.2f} M parameters in this process", describe_regions(model)]
    moe_blocks = [module for module in model.modules() if isinstance(module, MoE)]
    if moe_blocks:
        lines.append(f"{moe_blocks[0].describe()}, {len(moe_blocks)} blocks")
    else:
        lines.append("MoE: none")
    return lines
