"""Starts the small run that faults are done to, on ranks that can be spoilt in their own process.

Runs as ``python -m tests.e2e.faults.starts ORDER``, with an Order as JSON.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.commands import PRETRAIN
from tests.e2e.faults import spoil
from tests.e2e.runs import Training, log_of
from tests.nursery import execute, nursery
from tests.ranks import lead

SMALL = Path(__file__).with_name("small.json")  # the smallest run that has every mechanism


@dataclass(frozen=True)
class Order:
    """Ranks to be started.

    Attributes:
        world: number of ranks.
        words: of each rank's command line.
        run_dir: run folder.
        others: rank -> further words, for this rank alone.
    """

    world: int
    words: list[str]
    run_dir: str
    others: dict[str, list[str]] = field(default_factory=dict)


class Ranks(Training):
    """A training without the ``deepspeed`` command."""

    def starter(self) -> int:
        """The leader."""
        return self.process.pid


def start_ranks(order: Order) -> Ranks:
    """Start some ranks."""
    run_dir = Path(order.run_dir)
    log, log_begin = log_of(run_dir)
    words = ["-m", "tests.e2e.faults.starts", json.dumps(asdict(order))]
    return Ranks(nursery().start(words, out=log, err=log), run_dir, log, log_begin)


def start_words(run_dir: Path, shards: Path) -> list[str]:
    """The command line of the small run."""
    words = ["--deepspeed_config", str(SMALL), "--run_dir", str(run_dir)]
    return [*words, "--set", f"skysense.data.shards={shards}"]


def _main() -> None:
    order = Order(**json.loads(sys.argv[1]))

    def be_rank(rank: int) -> None:
        spoil.install(Path(order.run_dir), rank)
        execute([str(PRETRAIN), *order.words, *order.others.get(str(rank), [])])

    sys.exit(lead(order.world, be_rank))


if __name__ == "__main__":
    _main()
