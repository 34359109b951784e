"""Sinkhorn-Knopp: many small problems, and one over all prototypes."""

from typing import NamedTuple

import torch
from torch import Tensor

from engine.bench.case import FORWARD, Case, Goal, Way, Work
from engine.bench.cases.ways import NO_GPU, compiled, draw, switched
from models.fusion.sinkhorn import sinkhorn, sinkhorn_many
from models.reducer import Reducer

EPSILON, ITERATIONS = 0.05, 3


class Size(NamedTuple):
    """Problems of rows x columns; one problem is the loss's, with sums over the ranks (here one)."""

    problems: int
    rows: int
    columns: int

    def __str__(self):
        return f"{self.problems} x ({self.rows} x {self.columns})"


SIZES = {
    "paper": [Size(2048, 256, 100), Size(2048, 1024, 16), Size(2048, 16, 16), Size(1, 4096, 65536)],
    "small": [Size(64, 256, 100), Size(64, 1024, 16), Size(1, 256, 8192)],
    "tiny": [Size(3, 16, 10)],
}
GOALS = (Goal(FORWARD, "speed", 8, "eager"), Goal(FORWARD, "copy", 0.6))


def case(size: Size, device: torch.device) -> Case:
    """The PyTorch reference, eager and compiled, and the kernel; there is no library's."""
    scores = draw(*size, device=device, seed=0).mul_(0.25).clamp_(-1, 1)  # cosines
    mask = (
        torch.arange(size.rows, device=device).expand(size.problems, -1) % 8 != 7
    )  # one row in eight is absent
    alone = size.problems == 1
    reducer = Reducer()

    def call():
        if alone:
            return sinkhorn(
                scores[0], mask[0], epsilon=EPSILON, iterations=ITERATIONS, reducer=reducer
            )
        return sinkhorn_many(scores, mask, epsilon=EPSILON, iterations=ITERATIONS)

    ways = [
        Way("eager", switched("off", call)),
        Way("torch.compile", switched("off", compiled(call))),
    ]
    if device.type == "cuda":
        ways.append(Way("kernel", lambda: _kernel(scores, mask, alone), ours=True))
    # one problem is too large to stay on the chip: read at first, in each iteration, and where the
    # result is written
    passes = ITERATIONS + 1 if alone else 1
    return Case(
        "Sinkhorn-Knopp",
        f"{size}, float32",
        Way("exact", lambda: formula(scores[0] if alone else scores, mask[0] if alone else mask)),
        tuple(ways),
        tolerance=1e-4,
        products=torch.float32,
        work={FORWARD: Work((passes + 1) * scores.nbytes)},
        goals=GOALS if size == SIZES["paper"][0] else (),
        left_out={} if device.type == "cuda" else {"kernel": NO_GPU},
    )


def formula(scores: Tensor, mask: Tensor) -> Tensor:
    """float64: columns to equal sums, rows to equal sums, in turns; masked rows weigh nothing."""
    mask = mask[..., None]
    log = (scores.double() / EPSILON).where(mask, -torch.inf)  # ... N M
    for _ in range(ITERATIONS):
        log = log - log.logsumexp(dim=-2, keepdim=True)
        log = (log - log.logsumexp(dim=-1, keepdim=True)).where(mask, -torch.inf)
    return log.exp()


def _kernel(scores: Tensor, mask: Tensor, alone: bool) -> Tensor:
    from models.kernels.sinkhorn import assign  # needs triton

    if alone:
        return assign(
            scores[0], mask[0], epsilon=EPSILON, iterations=ITERATIONS, over_ranks=lambda sums: sums
        )
    return assign(scores, mask, epsilon=EPSILON, iterations=ITERATIONS)
