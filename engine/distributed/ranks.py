"""The frame of a command that runs on every rank."""

from collections.abc import Callable

import torch

from engine.distributed import zero
from engine.errors import USER_ERRORS, ConfigError, RankError


def run_on_ranks(work: Callable[[torch.device, int], int]) -> int:
    """Join the other processes, call ``work(device, number of ranks)``, and leave.

    An error of the user's that all ranks have alike is raised by rank 0 alone, so that it is shown
    once. The others return 2.

    Returns:
        The exit code of this rank.
    """
    device = zero.init_distributed()
    rank, world_size, _ = zero.ranks()
    try:
        return work(device, world_size)
    except (RankError, ConfigError) as error:
        cause = error.__cause__ or error
        if rank > 0 and isinstance(cause, USER_ERRORS):
            return 2
        raise
    finally:
        zero.shutdown()
