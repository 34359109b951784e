"""Values that are not numbers, on one rank, in one step."""

import os
import random
import signal

from tests.e2e.faults import spoil
from tests.e2e.faults.chain import Chain
from tests.e2e.faults.to_processes import DIED


def in_the_input(chain: Chain, rng: random.Random) -> None:
    """The step is skipped, and its rank and samples are named."""
    rank = rng.randrange(chain.world)
    _spoiled(chain, rng, spoil.INPUT, rank, f"is not finite, first on rank {rank}")


def in_the_gradient(chain: Chain, rng: random.Random) -> None:
    """The step is skipped although its loss is finite."""
    rank = rng.randrange(chain.world)
    _spoiled(chain, rng, spoil.GRADIENT, rank, "its loss is finite and its gradients are not")


def _spoiled(chain: Chain, rng: random.Random, what: str, rank: int, cause: str) -> None:
    """Spoil a step of a rank, and go back to the checkpoint before it."""
    run = chain.go(rng)
    run.wait_for(lambda: bool(chain.published))
    before = chain.published[-1]
    spoil.ask(chain.run_dir, what, rank)
    run.wait_for(lambda: cause in run.said)
    ranks = run.ranks()
    os.kill(rng.choice(ranks), signal.SIGKILL)
    run.wait()
    chain.says(run, DIED)
    chain.go_back(before)


KINDS = {
    "NaN in one rank's input": in_the_input,
    "NaN in one rank's gradient": in_the_gradient,
}
