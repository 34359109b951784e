"""DeepSpeed's own files inside a checkpoint: its weights, float32 master weights and moments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import InputError
from engine.distributed import zero

_TAG = "deepspeed"  # the folder of these files


def save(engine: zero.DeepSpeedEngine, folder: Path) -> None:
    """Write DeepSpeed's files of weights, float32 masters and moments into ``folder``.

    Every rank must call it.

    Raises:
        InputError: This rank cannot write. It raises only after it has passed DeepSpeed's barriers
            with the others.
    """
    with _late_errors(engine):
        engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)


@contextmanager
def _late_errors(engine: zero.DeepSpeedEngine) -> Iterator[None]:
    """Collect the errors of DeepSpeed's writer and raise the first one at the end.

    A rank that left in the middle would hang the others.
    """
    writer = engine.checkpoint_engine
    errors: list[tuple[Any, Exception]] = []

    def late(call: Callable) -> Callable:
        def attempt(*arguments: Any, **options: Any) -> Any:
            try:
                return call(*arguments, **options)
            except Exception as error:  # raised below
                path = arguments[-1]  # of both calls
                errors.append((path, error))
                return None

        return attempt

    writer.save = late(writer.save)
    writer.makedirs = late(writer.makedirs)
    engine._copy_recovery_script = lambda folder: None  # zero_to_fp32.py cannot read experts
    try:
        yield
    finally:
        del writer.save, writer.makedirs, engine._copy_recovery_script
    if errors:
        path, error = errors[0]
        raise InputError(f"{path}: cannot be written ({error})") from error


def load(engine: zero.DeepSpeedEngine, folder: Path) -> None:
    """Read what ``save`` wrote, with the same number of ranks and ``ep_size``.

    The engine keeps its own settings, which DeepSpeed would replace by the saved ones.

    Raises:
        InputError: DeepSpeed's files are missing.
    """
    optimizer = engine.optimizer
    clip = optimizer.clip_grad
    own = []
    for group in optimizer.param_groups:
        own.append({"betas": group["betas"], "eps": group["eps"]})
    path, _ = engine.load_checkpoint(str(folder), tag=_TAG)
    if path is None:
        raise InputError(
            f"{folder}: expected DeepSpeed's files in {_TAG}/, found none; use another checkpoint"
        )
    optimizer.clip_grad = clip
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def saved_partitions(folder: Path, rank: int) -> list[Tensor]:
    """The float32 master weights of a rank in a checkpoint, as ``zero.partitions`` gave them.

    They are on the CPU, and read from the disk only when used. DeepSpeed leaves out the padding at
    the end of a flat vector. Its files are pickles, so use this for your own checkpoints only.

    Raises:
        InputError: The file is missing.
    """
    files = list((folder / _TAG).glob(f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))
    if len(files) != 1:
        raise InputError(
            f"{folder}: expected one file of DeepSpeed's optimizer for rank {rank} in {_TAG}/, "
            f"found {len(files)}; use another checkpoint"
        )
    state = torch.load(files[0], map_location="cpu", mmap=True, weights_only=False)
    return state["optimizer_state_dict"]["single_partition_of_fp32_groups"]
