"""The frame of a command that runs on every rank."""

from collections.abc import Callable

import torch

from engine.distributed import zero
from engine.errors import ConfigError, RankError


def run_on_ranks(work: Callable[[torch.device, int], int]) -> int:
    """Join the other processes, call ``work(device, number of ranks)``, leave; returns the exit
    code of this rank.

    An error that all ranks have met alike is raised by rank 0 alone, to be said once; the others
    return 2.
    """
    device = zero.init_distributed()
    rank, world, _ = zero.ranks()
    try:
        return work(device, world)
    except (RankError, ConfigError) as error:
        if rank and isinstance(error.__cause__ or error, ValueError):
            return 2
        raise
    finally:
        zero.shutdown()
