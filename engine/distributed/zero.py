"""Everything of DeepSpeed that the engine uses, but for what a checkpoint holds (zero_state.py).

No other file of the engine reads its private names, and only fake_world.py, which stands in for a
GPU, imports it too. They were read in release 0.19.8 and are tested with it.

ZeRO stage 2 keeps, for each parameter group, one flat vector of all parameters in a fixed order.
The vector is cut into equal parts over the ranks that share the group: all ranks, or for experts
the ranks that hold the same ones. A *shard* here is this rank's part of such a vector, and a list
of shards has one entry for each group.
"""

import copy
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import deepspeed
import torch
import torch.distributed as dist

# Its functions take the world group of the moment of import as default argument. Imported before
# there is one they hold None, and the group can be freed at the end.
import torch.distributed.nn.functional
from deepspeed import DeepSpeedEngine
from deepspeed.moe.layer import MoE
from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer
from torch import Tensor, nn

from engine.errors import ConfigError

VERSION = "0.19.8"
# Elements of a parameter group: the optimizer's temporaries take at most half a GiB of float32.
GROUP_LIMIT = 2**27
_ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_engines: weakref.WeakSet = weakref.WeakSet()  # what shutdown has to take down

ParameterTest = Callable[[str, nn.Parameter], bool]  # asks a parameter's name and itself


def require_version(version: str) -> None:
    """Raise ConfigError unless DeepSpeed is the release whose private names this file knows."""
    if version != VERSION:
        raise ConfigError(
            f"deepspeed: expected version {VERSION}, found {version}; "
            f"pip install deepspeed=={VERSION}"
        )


require_version(deepspeed.__version__.split("+")[0])


class Ranks(NamedTuple):
    """Where this process stands among all processes of the run."""

    rank: int
    world_size: int
    local_rank: int  # within the machine


def init_distributed() -> torch.device:
    """Join the processes that the environment names (RANK, WORLD_SIZE, MASTER_ADDR, ...).

    NCCL connects them where torch sees a GPU, gloo otherwise.

    Returns:
        This rank's device.

    Raises:
        ConfigError: A variable is missing.
    """
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing:
        raise ConfigError(
            f"environment: expected {', '.join(missing)}, found nothing; "
            "start with the deepspeed command or a template of launch/"
        )
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        _join("nccl")
        return device
    _join("gloo")
    _unlink_shared_memory()
    return torch.device("cpu")


def _join(backend: str) -> None:
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


def _unlink_shared_memory() -> None:
    """Remove the name of the shared memory that DeepSpeed uses among CPU ranks of one machine.

    DeepSpeed never removes it, so each run would leave 66 MiB a rank until the machine restarts.
    Once all ranks have mapped it (the barrier) nobody needs the name, and the kernel frees the
    memory with the last rank, however that one ends.
    """
    dist.barrier()
    user = os.getuid()
    address = os.environ["MASTER_ADDR"]
    port = os.environ["MASTER_PORT"]
    name = f"deepspeed_allreduce_buffer_{user}_{address}_{port}_{dist.get_rank()}"
    Path("/dev/shm", name).unlink(missing_ok=True)


def ranks() -> Ranks:
    """Where this process stands. ``init_distributed`` comes first."""
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))


def shutdown() -> None:
    """Leave the process groups, DeepSpeed's included, if this process is in any.

    Afterwards no thread of gloo is left, provided that the caller holds no engine any more. ZeRO's
    gradient hooks keep an engine and its groups alive, and gloo's threads with them; threads that
    live until the interpreter's exit may abort the process there.
    """
    if not dist.is_initialized():
        return
    _remove_hooks()
    gc.collect()  # engines refer to themselves
    deepspeed.comm.destroy_process_group()


def _remove_hooks() -> None:
    """Remove the gradient hooks of all engines.

    It is a function of its own so that no local variable keeps an engine afterwards.
    """
    for engine in list(_engines):
        engine.destroy()


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    is_no_decay: ParameterTest,
    is_last_layer: ParameterTest,
) -> list[dict]:
    """Optimizer groups of a model, none of them larger than GROUP_LIMIT.

    Parameters are separated by decay and by last layer, and experts from all others. Each group
    keeps two flags of ours, ``decay`` and ``last_layer``, for ``set_schedule``. Every name is
    unique when DeepSpeed splits the experts off, because it merges the experts of groups with equal
    names, and their decay with them.
    """
    kinds: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (not is_no_decay(name, parameter), is_last_layer(name, parameter))
            kinds.setdefault(kind, []).append(parameter)
    groups = []
    for decay, last_layer in sorted(kinds):
        for index, parameters in enumerate(_bounded(kinds[decay, last_layer])):
            group = {
                "params": parameters,
                "name": _group_name(index, decay=decay, last_layer=last_layer),
                "decay": decay,
                "last_layer": last_layer,
                "weight_decay": 0.0,
            }
            if decay:
                group["weight_decay"] = weight_decay
            groups.append(group)
    groups = split_params_into_different_moe_groups_for_optimizer(
        groups, max_group_size=GROUP_LIMIT
    )
    return [group for group in groups if group["params"]]


def _group_name(index: int, *, decay: bool, last_layer: bool) -> str:
    """A name that no other group has. Checkpoints hold it."""
    name = "no_decay"
    if decay:
        name = "decay"
    if last_layer:
        name += ".last_layer"
    return f"{name}.{index}"


def _bounded(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of at most GROUP_LIMIT elements; a larger parameter stands alone."""
    run: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if run and size + parameter.numel() > GROUP_LIMIT:
            yield run
            run = []
            size = 0
        run.append(parameter)
        size += parameter.numel()
    yield run


def initialize(model: nn.Module, deepspeed_config: dict, groups: list[dict]) -> DeepSpeedEngine:
    """The DeepSpeed engine that trains ``model`` under ZeRO-2.

    The model is moved to this rank's device, cast to bf16 if the configuration says so, and takes
    rank 0's weights.

    Args:
        model: The model of this rank.
        deepspeed_config: DeepSpeed's keys.
        groups: What ``parameter_groups`` returned for the model.
    """
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=groups, config=copy.deepcopy(deepspeed_config)
    )
    _engines.add(engine)
    return engine


def join_expert_groups(module: nn.Module) -> None:
    """Give the MoE layers of a model outside the engine, such as a teacher, their process groups.

    Every rank must call it.
    """
    for submodule in module.modules():
        if isinstance(submodule, MoE):
            submodule.set_deepspeed_parallelism()


def compute_type(engine: DeepSpeedEngine) -> torch.dtype:
    """The type that the network computes in."""
    return engine.get_data_types()[0]


def ep_size(engine: DeepSpeedEngine) -> int:
    """Ranks that share the experts of an MoE layer; 1 without experts."""
    sizes = [module.ep_size for module in engine.module.modules() if isinstance(module, MoE)]
    return max(sizes, default=1)


def set_schedule(
    engine: DeepSpeedEngine, *, lr: float, weight_decay: float, last_layer_lr: float
) -> None:
    """Set the values of the coming step.

    Weight decay is set only where it applies. A ``last_layer_lr`` of 0 freezes the last layers.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
        if group["last_layer"]:
            group["lr"] = last_layer_lr
        group["weight_decay"] = 0.0
        if group["decay"]:
            group["weight_decay"] = weight_decay


def was_applied(engine: DeepSpeedEngine) -> bool:
    """Whether the last ``engine.step()`` changed the weights.

    A gradient that is not finite skips it on all ranks.
    """
    return engine.was_step_applied()


def gradient_norm(engine: DeepSpeedEngine) -> float:
    """L2 norm of the last step's averaged gradient before clipping, experts included.

    It is inf if the step was skipped, and the same on all ranks and for every ``ep_size``:
    DeepSpeed sums the squares of all shards over all ranks, and each expert lies in exactly one of
    the expert-data groups.
    """
    return float(engine.get_global_grad_norm())


def partitions(engine: DeepSpeedEngine) -> list[Tensor]:
    """The float32 master weights of this rank, one flat shard for each group.

    They are live tensors, not copies.
    """
    return [shard.detach() for shard in engine.optimizer.single_partition_of_fp32_groups]


def moments(engine: DeepSpeedEngine, name: str) -> list[Tensor]:
    """Adam's ``exp_avg`` or ``exp_avg_sq``, laid out as ``partitions``.

    There are none before the first step.
    """
    optimizer = engine.optimizer
    return [optimizer.state[shard][name] for shard in optimizer.single_partition_of_fp32_groups]


def shape_tensors(engine: DeepSpeedEngine) -> list[Tensor]:
    """Tensors without memory that DeepSpeed keeps for the shapes of the parameters."""
    return list(chain.from_iterable(engine.optimizer.round_robin_bit16_meta))


@dataclass(frozen=True)
class FlatGroup:
    """How a parameter group lies in its flat vector."""

    processes: dist.ProcessGroup  # who holds a shard of it, in this order
    names: list[str]  # of the parameters, local to this rank
    shapes: list[torch.Size]
    offsets: list[int]  # where each parameter begins in the flat vector, in elements


def flat_groups(engine: DeepSpeedEngine) -> list[FlatGroup]:
    """The layout of all parameter groups, in the order of ``partitions``."""
    optimizer = engine.optimizer
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    groups = []
    for processes, parameters, offsets in zip(
        optimizer.real_dp_process_group,
        optimizer.round_robin_bit16_groups,
        optimizer.round_robin_bit16_offsets,
        strict=True,
    ):
        group = FlatGroup(
            processes=processes,
            names=[names[id(parameter)] for parameter in parameters],
            shapes=[parameter.shape for parameter in parameters],
            offsets=list(offsets),
        )
        groups.append(group)
    return groups
