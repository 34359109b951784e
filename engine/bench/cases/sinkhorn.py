"""Sinkhorn-Knopp: many small problems, and one over all prototypes."""

from typing import NamedTuple

import torch
from torch import Tensor

from engine.bench.case import FORWARD, Candidate, Case, Goal, Work
from engine.bench.cases.candidates import NO_GPU, compiled, draw, switched
from models.fusion.sinkhorn import sinkhorn, sinkhorn_many
from models.reducer import Reducer

EPSILON = 0.05
ITERATIONS = 3


class Size(NamedTuple):
    """Problems of rows x columns.

    A single problem is that of the loss, with sums over the ranks (here one).
    """

    problems: int
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.problems} x ({self.rows} x {self.columns})"


SIZES = {
    "paper": [Size(2048, 256, 100), Size(2048, 1024, 16), Size(2048, 16, 16), Size(1, 4096, 65536)],
    "small": [Size(64, 256, 100), Size(64, 1024, 16), Size(1, 256, 8192)],
    "tiny": [Size(3, 16, 10)],
}
GOALS = (Goal(FORWARD, "speed", 8, "eager"), Goal(FORWARD, "copy", 0.6))


def case(size: Size, device: torch.device) -> Case:
    """The PyTorch reference, eager and compiled, and the kernel. No library has it."""
    scores = draw(*size, device=device, seed=0).mul_(0.25).clamp_(-1, 1)  # problems N M, cosines
    rows = torch.arange(size.rows, device=device)  # N
    mask = rows.expand(size.problems, -1) % 8 != 7  # problems N: one row in eight is absent
    alone = size.problems == 1
    if alone:
        scores = scores[0]  # N M
        mask = mask[0]  # N
    reducer = Reducer()

    def reference() -> Tensor:
        if alone:
            return sinkhorn(scores, mask, epsilon=EPSILON, iterations=ITERATIONS, reducer=reducer)
        return sinkhorn_many(scores, mask, epsilon=EPSILON, iterations=ITERATIONS)

    candidates = [
        Candidate("eager", switched("off", reference)),
        Candidate("torch.compile", switched("off", compiled(reference))),
    ]
    left_out = {"kernel": NO_GPU}
    if device.type == "cuda":
        candidates.append(Candidate("kernel", lambda: _kernel(scores, mask), ours=True))
        left_out = {}
    # one problem is too large to stay on the chip: it is read at first, in each iteration, and
    # where the result is written
    passes = ITERATIONS + 1 if alone else 1
    return Case(
        "Sinkhorn-Knopp",
        f"{size}, float32",
        Candidate("exact", lambda: formula(scores, mask)),
        tuple(candidates),
        tolerance=1e-4,
        products=torch.float32,
        work={FORWARD: Work((passes + 1) * scores.nbytes)},
        goals=GOALS if size == SIZES["paper"][0] else (),
        left_out=left_out,
    )


def formula(scores: Tensor, mask: Tensor) -> Tensor:
    """float64: columns to equal sums, rows to equal sums, in turns; masked rows weigh nothing."""
    mask = mask[..., None]  # ... N 1
    log = (scores.double() / EPSILON).where(mask, -torch.inf)  # ... N M
    for _ in range(ITERATIONS):
        log = log - log.logsumexp(dim=-2, keepdim=True)
        log = (log - log.logsumexp(dim=-1, keepdim=True)).where(mask, -torch.inf)
    return log.exp()


def _kernel(scores: Tensor, mask: Tensor) -> Tensor:
    """The Triton kernel; a single problem takes the sums of all ranks."""
    from models.kernels.sinkhorn import assign  # needs triton

    if scores.ndim == 2:
        return assign(
            scores, mask, epsilon=EPSILON, iterations=ITERATIONS, column_sums=lambda sums: sums
        )
    return assign(scores, mask, epsilon=EPSILON, iterations=ITERATIONS)
