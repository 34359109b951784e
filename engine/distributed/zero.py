"""Everything of DeepSpeed that the engine touches; no other file of it imports deepspeed or reads
its private names.

ZeRO stage 2 keeps, for each parameter group, one flat vector of all parameters in a fixed order, cut into equal parts
over the ranks that share the group: all ranks, or for experts the ranks that hold the same ones. A *shard* here is this
rank's part of such a vector, and a list of shards has one entry a group. The private names were read in release
0.19.8 and are tested with it.
"""

import copy
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist

# Its functions take the world group of the moment of import as default argument. Imported before
# there is one they hold None, and the group can be freed at the end.
import torch.distributed.nn.functional  # noqa: F401
from deepspeed.moe.layer import MoE
from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer
from torch import Tensor, nn

from data.errors import InputError
from engine.errors import ConfigError

VERSION = "0.19.8"
GROUP_LIMIT = (
    2**27
)  # elements of a parameter group: the optimizer's temporaries are half a GiB of float32 at most
_engines: weakref.WeakSet = weakref.WeakSet()  # what shutdown has to take down
_TAG = "deepspeed"  # folder of DeepSpeed's files inside a checkpoint


def require_version(found: str) -> None:
    """Raise ConfigError unless DeepSpeed is the release whose private names this file knows."""
    if found != VERSION:
        raise ConfigError(
            f"deepspeed: expected version {VERSION}, found {found}; pip install deepspeed=={VERSION}"
        )


require_version(deepspeed.__version__.split("+")[0])


def init_distributed() -> torch.device:
    """Join the processes named by the environment (RANK, WORLD_SIZE, MASTER_ADDR, ...) and return
    this rank's device.

    NCCL where torch sees a GPU, gloo otherwise. Raises ConfigError when a variable is missing.
    """
    missing = [
        name
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if name not in os.environ
    ]
    if missing:
        raise ConfigError(
            f"environment: expected {', '.join(missing)}, found nothing; "
            "start with the deepspeed command or a template of launch/"
        )
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    deepspeed.init_distributed("nccl" if gpu else "gloo", auto_mpi_discovery=False, verbose=False)
    if not gpu:
        _unlink_shared_memory()
    return device


def _unlink_shared_memory() -> None:
    """Remove the name of the shared memory through which DeepSpeed reduces among CPU ranks of one
    machine.

    DeepSpeed never does: each run would leave 66 MiB a rank until the machine starts anew. Once all
    ranks have mapped it (the barrier) nobody needs the name, and the kernel frees the memory with
    the last rank, however that one ends.
    """
    dist.barrier()
    owner, where = os.getuid(), f"{os.environ['MASTER_ADDR']}_{os.environ['MASTER_PORT']}"
    Path(f"/dev/shm/deepspeed_allreduce_buffer_{owner}_{where}_{dist.get_rank()}").unlink(
        missing_ok=True
    )


def ranks() -> tuple[int, int, int]:
    """Rank, number of ranks, and rank within the machine."""
    return dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"])


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
    """Take the gradient hooks of all engines away; in a function of its own, so that no local
    variable keeps an engine afterwards."""
    for engine in list(_engines):
        engine.destroy()


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    is_no_decay: Callable[[str, nn.Parameter], bool],
    is_last_layer: Callable[[str, nn.Parameter], bool],
) -> list[dict]:
    """Optimizer groups of a model: by decay, by last layer, experts apart from the rest, none above
    GROUP_LIMIT.

    Two flags of ours, ``decay`` and ``last_layer``, stay with each group for ``set_schedule``.
    Every name is unique when DeepSpeed splits the experts off: it merges the experts of groups with
    equal names, and their decay with them.
    """
    kinds: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (not is_no_decay(name, parameter), is_last_layer(name, parameter))
            kinds.setdefault(kind, []).append(parameter)
    groups = []
    for (decay, last), parameters in sorted(kinds.items(), key=lambda item: item[0]):
        for index, part in enumerate(_bounded(parameters)):
            name = f"{'decay' if decay else 'no_decay'}{'.last_layer' * last}.{index}"
            groups.append(
                {
                    "params": part,
                    "name": name,
                    "decay": decay,
                    "last_layer": last,
                    "weight_decay": weight_decay if decay else 0.0,
                }
            )
    groups = split_params_into_different_moe_groups_for_optimizer(
        groups, max_group_size=GROUP_LIMIT
    )
    return [group for group in groups if group["params"]]


def _bounded(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of at most GROUP_LIMIT elements; a larger parameter stands alone."""
    part, size = [], 0
    for parameter in parameters:
        if part and size + parameter.numel() > GROUP_LIMIT:
            yield part
            part, size = [], 0
        part.append(parameter)
        size += parameter.numel()
    yield part


def initialize(model: nn.Module, deepspeed_config: dict, groups: list[dict]):
    """The DeepSpeed engine that trains ``model`` under ZeRO-2; ``groups`` of ``parameter_groups``.

    The model is moved to this rank's device, cast to bf16 if the configuration says so, and takes
    rank 0's weights.
    """
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=groups, config=copy.deepcopy(deepspeed_config)
    )
    _engines.add(engine)
    return engine


def join_expert_groups(module: nn.Module) -> None:
    """Give the mixtures of a model outside the engine, such as a teacher, their process groups; on
    every rank."""
    for part in module.modules():
        if isinstance(part, MoE):
            part.set_deepspeed_parallelism()


def compute_type(engine) -> torch.dtype:
    """The type that the network computes in."""
    return engine.get_data_types()[0]


def ep_size(engine) -> int:
    """Ranks that share the experts of a mixture; 1 without experts."""
    return max(
        (module.ep_size for module in engine.module.modules() if isinstance(module, MoE)), default=1
    )


def set_schedule(engine, lr: float, weight_decay: float, last_layer_lr: float) -> None:
    """Set the values of the coming step; weight decay only where it applies, 0 freezes the last
    layers."""
    for group in engine.optimizer.param_groups:
        group["lr"] = last_layer_lr if group["last_layer"] else lr
        group["weight_decay"] = weight_decay if group["decay"] else 0.0


def was_applied(engine) -> bool:
    """Whether the last ``engine.training.step()`` changed the weights. A gradient that is not
    finite skips it on all ranks."""
    return engine.was_step_applied()


def gradient_norm(engine) -> float:
    """L2 norm of the last step's averaged gradient before clipping, experts included; inf if the
    step was skipped.

    The same on all ranks and for every ``ep_size``: DeepSpeed sums the squares of all shards over
    all ranks, and each expert lies in exactly one of the expert-data groups.
    """
    return float(engine.get_global_grad_norm())


def partitions(engine) -> list[Tensor]:
    """The float32 master weights of this rank, flat, one shard a group; live tensors, not copies."""
    return [shard.detach() for shard in engine.optimizer.single_partition_of_fp32_groups]


def moments(engine, name: str) -> list[Tensor]:
    """Adam's ``exp_avg`` or ``exp_avg_sq``, laid out as ``partitions``. There are none before the
    first step."""
    optimizer = engine.optimizer
    return [optimizer.state[shard][name] for shard in optimizer.single_partition_of_fp32_groups]


def layout(engine, names: dict[str, str]) -> list[dict]:
    """What lies where in this rank's shards, as JSON: a group each, in the order of ``partitions``.

    ``ranks``: who holds the group's flat vector, a shard each, in this order. ``parameters``: name
    (``names`` turns the local ones into those of the whole model), shape and place in the flat
    vector, in elements.
    """
    optimizer = engine.optimizer
    known = {id(parameter): names[name] for name, parameter in engine.module.named_parameters()}
    return [
        {
            "ranks": dist.get_process_group_ranks(group),
            "parameters": [
                [known[id(p)], list(p.shape), place]
                for p, place in zip(parameters, offsets, strict=True)
            ],
        }
        for group, parameters, offsets in zip(
            optimizer.real_dp_process_group,
            optimizer.round_robin_bit16_groups,
            optimizer.round_robin_bit16_offsets,
            strict=True,
        )
    ]


def saved_partitions(folder: Path, rank: int) -> list[Tensor]:
    """The float32 master weights of a rank in a checkpoint's folder, as ``partitions`` gave them,
    on the CPU.

    DeepSpeed leaves out the padding at the end of a flat vector. Its files are pickles: for one's
    own checkpoints.
    """
    found = list((folder / _TAG).glob(f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))
    if len(found) != 1:
        raise InputError(
            f"{folder}: expected one file of DeepSpeed's optimizer for rank {rank} in {_TAG}/, found "
            f"{len(found)}; use another checkpoint"
        )
    state = torch.load(
        found[0], map_location="cpu", mmap=True, weights_only=False
    )  # read when looked at
    return state["optimizer_state_dict"]["single_partition_of_fp32_groups"]


class FlatCopy:
    """The parameters of a module outside the engine, laid out as ZeRO lays out its own, to be
    filled from shards.

    They become views of one flat vector a group, so that what is gathered needs neither a second
    place nor a copy. ``module`` has the names and shapes of the engine's model on this rank; its
    values stay. Raises ValueError if the parameters of a group are of several types.
    """

    @torch.no_grad()
    def __init__(self, engine, module: nn.Module):
        optimizer = engine.optimizer
        names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
        targets = dict(module.named_parameters())
        self.groups, self.flats = optimizer.real_dp_process_group, []
        self.pending: list[dist.Work] = []
        layouts = zip(
            optimizer.round_robin_bit16_groups, optimizer.round_robin_bit16_offsets, strict=True
        )
        for shard, group, (parameters, offsets) in zip(
            partitions(engine), self.groups, layouts, strict=True
        ):
            found = [targets[names[id(parameter)]] for parameter in parameters]
            types = {target.dtype for target in found}
            if len(types) != 1:
                raise ValueError(
                    f"flat copy: expected parameters of one type, found {sorted(map(str, types))}; cast "
                    "the module first"
                )
            flat = found[0].new_zeros(shard.numel() * dist.get_world_size(group))
            for target, offset in zip(found, offsets, strict=True):
                view = flat[offset : offset + target.numel()].view_as(target)
                view.copy_(target)
                target.data = view
            self.flats.append(flat)

    @torch.no_grad()
    def start(self, index: int, shard: Tensor) -> None:
        """Begin to put the shards of group ``index`` together, cast to the module's type; every
        rank must call it.

        Until ``wait`` the parameters hold nothing of use. A cast commutes with the exchange; before
        it, bf16 halves what travels. The shard is free again at once.
        """
        flat, group = self.flats[index], self.groups[index]
        mine = flat.view(dist.get_world_size(group), -1)[dist.get_rank(group)]
        mine.copy_(shard)
        if mine.numel() != flat.numel():
            self.pending.append(dist.all_gather_into_tensor(flat, mine, group=group, async_op=True))

    def wait(self) -> None:
        """Until all that was started is there: on a GPU its queue waits, the host does not."""
        for work in self.pending:
            work.wait()
        self.pending = []

    def fill(self, shards: list[Tensor]) -> None:
        """Put the shards of all groups together; every rank must call it."""
        self.wait()
        for index, shard in enumerate(shards):
            self.start(index, shard)
        self.wait()


def save_checkpoint(engine, folder: Path) -> None:
    """Write DeepSpeed's files of weights, float32 masters and moments into ``folder``; every rank
    must call it.

    A rank that cannot write raises only after it has passed DeepSpeed's barriers with the others.
    """
    with _late_errors(engine):
        engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)


@contextmanager
def _late_errors(engine):
    """Collect the errors of DeepSpeed's writer and raise the first at the end."""
    writer, errors = engine.checkpoint_engine, []

    def late(call):
        def attempt(*args, **kwargs):
            try:
                return call(*args, **kwargs)
            except (
                Exception
            ) as error:  # a rank that leaves here would hang the others; raised below
                errors.append((args[-1], error))  # the path is the last of both calls

        return attempt

    writer.save, writer.makedirs = late(writer.save), late(writer.makedirs)
    engine._copy_recovery_script = lambda folder: None  # zero_to_fp32.py cannot read experts
    try:
        yield
    finally:
        del writer.save, writer.makedirs, engine._copy_recovery_script
    if errors:
        path, error = errors[0]
        raise OSError(f"{path}: cannot be written ({error})") from error


def load_checkpoint(engine, folder: Path) -> None:
    """Read what ``save_checkpoint`` wrote, with the same number of ranks and the same ``ep_size``."""
    found, _ = engine.load_checkpoint(str(folder), tag=_TAG)
    if found is None:
        raise InputError(
            f"{folder}: expected DeepSpeed's files in {_TAG}/, found none; use another checkpoint"
        )
