"""What one rank finds out about its node before a run on many nodes."""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import torch

from data.errors import InputError
from data.files import write_whole
from data.hashing import content_hash
from engine.config.code import source_hashes, versions
from engine.config.load import Config, load
from engine.doctor.fact import MISSING
from engine.doctor.machine import device
from engine.doctor.needs import needs
from engine.errors import ConfigError
from engine.training.inputs import open_dataset

# Phases, beside those of the exchanges.
LOOKED = "looked around"  # the first: nothing was exchanged yet
JOINED = "joined the others"
DONE = "done"  # the last one
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DRIVER = Path("/sys/module/nvidia/version")
_SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product is timed
_REPEATS = 5


@dataclass
class RankReport:
    """What a rank says; a file of its own holds it, so that the others need not be there.

    Attributes:
        rank: of the process.
        host: its node, the short name.
        phase: the last thing that it has done.
        same: name -> what must be the same on all nodes.
        problems: what its node lacks, a line each.
        not_joined: why it could not join the others, empty if it could.
        figures: name -> matrix product in FLOP/s, exchanges in bytes/s.
        clock: seconds since 1970 when all ranks had met; 0: they have not.
    """

    rank: int
    host: str
    phase: str = LOOKED
    same: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    not_joined: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    clock: float = 0.0

    def write(self, folder: Path) -> None:
        """Replace the rank's file."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"rank-{self.rank:05d}.json", json.dumps(asdict(self)))

    @classmethod
    def read_all(cls, folder: Path) -> list[Self]:
        """The reports of all ranks that have written one, by rank."""
        files = sorted(folder.glob("rank-*.json"))
        return [cls(**json.loads(file.read_text())) for file in files]


def short_host(name: str) -> str:
    """A host's name without its domain, as SLURM names nodes."""
    return name.split(".")[0]


def look(path: Path, overrides: list[str]) -> RankReport:
    """Look around on this rank's node. Nothing is exchanged.

    Args:
        path: Configuration file of the run.
        overrides: ``place=value`` of it.
    """
    rank = int(os.environ["RANK"])
    ranks = int(os.environ["WORLD_SIZE"])
    local_ranks = int(os.environ["LOCAL_SIZE"])
    report = RankReport(rank, short_host(platform.node()))
    report.same = _same()
    report.problems = port_problems(int(os.environ["MASTER_PORT"]), _PORTS.read_text())
    try:
        config = load(path, overrides, world_size=ranks)
    except ConfigError as error:
        report.problems.append(str(error))
        return report
    report.problems += _cards(config, local_ranks)
    if int(os.environ["LOCAL_RANK"]) == 0:  # the same for all ranks of a node
        for fact in needs(config, ranks=ranks, local_ranks=local_ranks):
            if fact.state == MISSING:
                report.problems.append(f"{fact.name}: {fact.explanation()}")
        report.same |= _dataset(config)
    report.figures["matrix product"] = matrix_product()
    return report


def port_problems(port: int, ephemeral: str) -> list[str]:
    """A line if the system may give the port to any other program.

    Args:
        port: MASTER_PORT.
        ephemeral: First and last port of those, as the kernel shows them.
    """
    first, last = map(int, ephemeral.split())
    if not first <= port <= last:
        return []
    return [
        f"MASTER_PORT: expected a port outside {first}-{last}, which this system gives to any "
        f"program, found {port}"
    ]


def _same() -> dict[str, str]:
    """What must be the same on all nodes: versions, code, driver, kind of GPU."""
    same = {f"version of {name}": str(found) for name, found in versions().items()}
    same["code"] = content_hash(json.dumps(source_hashes()).encode())[:12]
    same["CUDA"] = str(torch.version.cuda)
    same["driver"] = "none"
    if _DRIVER.exists():
        same["driver"] = _DRIVER.read_text().strip()
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    same["GPUs"] = ", ".join(sorted(names)) or "none"
    return same


def _cards(config: Config, local_ranks: int) -> list[str]:
    """A line if the node has too few GPUs for its ranks."""
    cards = torch.cuda.device_count()
    needed = cards > 0 or config.settings.needs_gpu
    if not needed or cards >= local_ranks:
        return []
    return [f"GPUs: expected {local_ranks}, one a rank, found {cards}"]


def _dataset(config: Config) -> dict[str, str]:
    """Which dataset this node sees; a node that sees none says so among the needs."""
    try:
        return {"dataset": open_dataset(config.settings).fingerprint}
    except (InputError, ConfigError):
        return {}


def matrix_product() -> float:
    """FLOP/s of a product of two square matrices on this rank's device, the best of some."""
    place = device()
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    side = _SIDES[place.type]
    matrix = torch.randn(side, side, device=place)
    if place.type == "cuda":
        matrix = matrix.bfloat16()
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best
