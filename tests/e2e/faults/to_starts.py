"""Starts that do not fit: a second job, ranks that differ, another number of ranks."""

import os
import random
import signal

from tests.e2e.faults.chain import Chain
from tests.e2e.faults.to_processes import DIED, end_well

_SETTINGS = (
    "optimizer.params.lr=0.5",
    "gradient_clipping=1.0",
    "skysense.seed=7",
    "skysense.checkpoint.every=7",
    "skysense.loss.clusters=3",
)


def two_jobs(chain: Chain, rng: random.Random) -> None:
    """The second job ends in one line that names the first, which goes on."""
    run = chain.go(rng)
    other = chain.start()
    assert other.wait() == 2
    chain.says(other, "expected a run folder that no job works in, found attempt")
    end_well(chain, run)


def ranks_that_differ(chain: Chain, rng: random.Random) -> None:
    """They end before the first step, and the folder is as it was."""
    rank = rng.randrange(1, chain.world)
    setting = rng.choice(_SETTINGS)
    place = setting.partition("=")[0]
    run = chain.start(others={rank: ["--set", setting]})
    chain.refused(run, f"{place}: expected ", f"on rank {rank} ")


def another_number_of_ranks(chain: Chain, rng: random.Random) -> None:
    """A copy of the run goes on with another number of ranks, to the same losses."""
    run = chain.go(rng)
    run.wait_for(lambda: bool(chain.published))
    os.kill(rng.choice(run.ranks()), signal.SIGKILL)
    chain.ended(run, DIED)
    world = rng.choice([world for world in (2, 4) if world != chain.world])
    chain.continued_in_a_copy(world)


KINDS = {
    "two jobs at once": two_jobs,
    "ranks with different settings": ranks_that_differ,
    "changed world size": another_number_of_ranks,
}
