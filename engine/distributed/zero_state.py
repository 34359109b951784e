"""What a checkpoint holds of ZeRO's optimizer: this rank's shards, and which weights lie in them.

Like ``zero.py`` it reads private names of DeepSpeed; no other file does.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.distributed import zero
from engine.distributed.pieces import MASTER, MOMENTS, Layout, Piece
from models.moe.layer import canonical_names


def layout(engine: zero.DeepSpeedEngine) -> Layout:
    """Which weights lie in this rank's shards.

    What they leave out at the end of a shard is padding, always zero.
    """
    names = canonical_names(engine.module)
    groups = []
    for shard, group in zip(zero.partitions(engine), zero.flat_groups(engine), strict=True):
        begin = dist.get_rank(group.processes) * shard.numel()  # in the flat vector
        in_group = []
        for name, shape, offset in zip(group.names, group.shapes, group.offsets, strict=True):
            first = max(offset, begin)
            end = min(offset + shape.numel(), begin + shard.numel())
            if first < end:
                piece = Piece(
                    name=names[name],
                    shape=list(shape),
                    first=first - offset,
                    size=end - first,
                    offset=first - begin,
                )
                in_group.append(piece)
        groups.append(in_group)
    return groups


def shards(engine: zero.DeepSpeedEngine) -> dict[str, list[Tensor]]:
    """The float32 weights and Adam's moments of this rank: a shard for each group.

    They are live tensors, except for moments before the first step, which are zero.
    """
    if steps(engine) > 0:
        moments = {name: zero.moments(engine, name) for name in MOMENTS}
    else:
        moments = new_moments(engine)
    return {MASTER: zero.partitions(engine), **moments}


def new_moments(engine: zero.DeepSpeedEngine) -> dict[str, list[Tensor]]:
    """Zeros in the layout of Adam's moments."""
    return {
        name: [torch.zeros_like(shard) for shard in zero.partitions(engine)] for name in MOMENTS
    }


def steps(engine: zero.DeepSpeedEngine) -> int:
    """Steps that Adam has made, which its bias correction counts; the same in all groups."""
    optimizer = engine.optimizer
    state = optimizer.state.get(optimizer.single_partition_of_fp32_groups[0], {})
    return int(state.get("step", 0))


def put_moments(
    engine: zero.DeepSpeedEngine, moments: dict[str, list[Tensor]], *, steps: int
) -> None:
    """Give Adam its moments and the number of steps that it has made.

    The optimizer's settings (learning rate, betas, epsilon, weight decay) stay this run's.

    Args:
        engine: The engine.
        moments: A shard for each group, by the names in ``MOMENTS``. They become Adam's own.
        steps: As ``steps`` gave them. With 0 Adam starts anew.
    """
    adam = engine.optimizer.optimizer
    state: dict[int, dict[str, Any]] = {}
    if steps > 0:
        for index in range(len(adam.param_groups)):  # each has one parameter, its shard
            state[index] = {name: moments[name][index] for name in MOMENTS}
            state[index]["step"] = steps
            if isinstance(adam, torch.optim.Adam):  # AdamW is one; DeepSpeed's own count in Python
                state[index]["step"] = torch.tensor(float(steps))
    settings = adam.state_dict()["param_groups"]
    adam.load_state_dict({"state": state, "param_groups": settings})


def show_weights(engine: zero.DeepSpeedEngine) -> None:
    """Let the network have the float32 weights, in its own type; every rank must call it."""
    engine.optimizer.update_lp_params()


def count_steps(engine: zero.DeepSpeedEngine, steps: int) -> None:
    """Let DeepSpeed's own log and monitors go on after ``steps`` steps."""
    engine.global_steps = steps
    engine.global_samples = steps * engine.train_batch_size()
