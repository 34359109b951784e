"""Ranks of one machine, started as ``srun`` does: a leader waits for them and passes nothing on.

Runs as ``python -m tests.ranks WORLD WORDS``: in each rank ``python WORDS``.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Callable

from tests.dist import processes
from tests.nursery import execute

GRACE = 10.0  # seconds that ranks have when another has failed; srun --wait


def lead(world: int, be_rank: Callable[[int], None]) -> int:
    """Fork the ranks and wait for all.

    Args:
        world: Number of ranks.
        be_rank: Called in each rank with its number. It must leave the process.

    Returns:
        The first exit code that is not 0. A signal counts as the shell counts it.
    """
    port = processes.free_port()
    ranks = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            os.environ.update(processes.environment_of(rank, world, port))
            sys.stdout.reconfigure(write_through=True)  # as the environment asks for
            be_rank(rank)
        ranks.append(pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # as slurmstepd: they are the ranks' business
    for code in _wait_for_all(ranks):
        if code > 0:
            return code
        if code < 0:
            return 128 - code
    return 0


def _wait_for_all(ranks: list[int]) -> list[int]:
    """Exit codes of all ranks. Those that long outlive a failed one are killed, as by srun."""
    codes: dict[int, int] = {}
    end = math.inf
    while len(codes) < len(ranks):
        for pid in ranks:
            if pid not in codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()):
            end = min(end, time.monotonic() + GRACE)
        if time.monotonic() > end:
            for pid in ranks:
                if pid not in codes:
                    os.kill(pid, signal.SIGKILL)
            end = math.inf
        time.sleep(0.02)
    return [codes[pid] for pid in ranks]


def _main() -> None:
    world, *words = sys.argv[1:]

    def be_rank(rank: int) -> None:
        execute(words)
        sys.exit(0)

    sys.exit(lead(int(world), be_rank))


if __name__ == "__main__":
    _main()
