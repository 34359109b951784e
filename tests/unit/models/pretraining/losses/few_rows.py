"""What targets of few rows are worth: ``python -m`` this module prints a table.

Rows are drawn around some kinds of ground. Sinkhorn-Knopp assigns N of them alone, and the same
together with thousands of others; the table has the entropy of both targets, and the cosine between
the gradients of the student's features that follow from them.
"""

import math

import torch
import torch.nn.functional as F

from models.fusion.sinkhorn import sinkhorn
from models.pretraining.losses.dino import DinoSpec
from models.reducer import Reducer

DEPTH = 64
SPEC = DinoSpec(teacher_temperature=0.04)
OTHERS = 4096
ROWS = (1, 4, 16, 32, 64, 128, 256, 1024)


def around(kinds: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Unit vectors near some of the ``kinds``, (count, D)."""
    chosen = torch.randint(len(kinds), (count,), generator=generator)
    noise = torch.randn(count, DEPTH, generator=generator) / math.sqrt(DEPTH)
    return F.normalize(kinds[chosen] + 0.7 * noise, dim=1)


def targets(features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Targets (N, K) of Sinkhorn-Knopp over ``features`` (N, D)."""
    return sinkhorn(
        features @ prototypes.T,
        torch.ones(len(features), dtype=torch.bool),
        epsilon=SPEC.teacher_temperature,
        iterations=SPEC.iterations,
        reducer=Reducer(),
    )


def compare(rows: int, prototypes: int, kinds: int, repeats: int = 10) -> tuple[float, ...]:
    """Entropy of the targets of few rows and of many, as shares of log K, and the cosine of their
    gradients; means over ``repeats``."""
    generator = torch.Generator().manual_seed(rows)
    centres = F.normalize(torch.randn(kinds, DEPTH, generator=generator), dim=1)
    weights = torch.randn(prototypes, DEPTH, generator=generator) / math.sqrt(DEPTH)
    weights = F.normalize(weights + 1.5 * around(centres, prototypes, generator), dim=1)
    others = around(centres, OTHERS, generator)
    figures = []
    for _ in range(repeats):
        teacher = around(centres, rows, generator)
        noise = torch.randn(rows, DEPTH, generator=generator) / math.sqrt(DEPTH)
        student = F.normalize(teacher + 0.5 * noise, dim=1)
        p = (student @ weights.T / SPEC.student_temperature).softmax(dim=1)
        few = targets(teacher, weights)
        many = targets(torch.cat([teacher, others]), weights)[:rows]
        cosine = F.cosine_similarity((p - few) @ weights, (p - many) @ weights, dim=1).mean()
        entropies = [
            torch.special.entr(t).sum(dim=1).mean() / math.log(prototypes) for t in (few, many)
        ]
        figures.append(torch.stack([*entropies, cosine]))
    return tuple(torch.stack(figures).mean(dim=0).tolist())


if __name__ == "__main__":
    print("    K kinds  rows  entropy alone  among many  cosine of gradients")
    for prototypes, kinds in ((64, 64), (1024, 64), (1024, 16), (1024, 256)):
        for rows in ROWS:
            alone, among, cosine = compare(rows, prototypes, kinds)
            print(f"{prototypes:5} {kinds:5} {rows:5} {alone:14.2f} {among:11.2f} {cosine:8.2f}")
