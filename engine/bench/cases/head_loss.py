"""The learning loss of one head: with rows x prototypes logits as usual, and without
(models/pretraining/losses/head_loss.py)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, BOTH, FORWARD, Case, Goal, Way, Work, exact, leaves
from engine.bench.cases.ways import compiled, draw, precise, switched, way, with_kernels
from models.pretraining.losses.dino import DinoSpec
from models.pretraining.losses.head_loss import head_loss
from models.pretraining.losses.targets import head_targets
from models.reducer import Reducer

DEPTH = 256
SPEC = DinoSpec(student_temperature=0.1, teacher_temperature=0.04, iterations=3)


class Size(NamedTuple):
    """Rows of student and teacher, each student's row with one partner."""

    rows: int
    prototypes: int

    def __str__(self):
        return f"{self.rows} rows, K {self.prototypes}"


SIZES = {
    "paper": [Size(1024, 65536), Size(4096, 8192), Size(4096, 65536)],
    "small": [Size(256, 8192), Size(256, 65536), Size(1024, 8192), Size(1024, 65536)],
    "tiny": [Size(24, 96)],
}
GOALS = (Goal(BOTH, "memory", 0.1, "eager"), Goal(BOTH, "speed", 1.3, "eager"))


def case(size: Size, device: torch.device) -> Case:
    """Sinkhorn-Knopp targets and cross-entropy, with gradients of the student's features and
    prototypes."""
    features, theirs = (
        F.normalize(draw(size.rows, DEPTH, device=device, seed=s), dim=-1) for s in (0, 1)
    )  # N D
    prototypes, their = (
        F.normalize(draw(size.prototypes, DEPTH, device=device, seed=s), dim=-1) for s in (2, 3)
    )
    mask = torch.ones(size.rows, dtype=torch.bool, device=device)
    partners = torch.arange(size.rows, device=device)[:, None]  # N 1
    reducer = Reducer()

    def without_logits(features: Tensor, prototypes: Tensor) -> Tensor:
        targets = head_targets(theirs, their, mask=mask, spec=SPEC, reducer=reducer)
        return head_loss(
            features,
            prototypes,
            targets=targets,
            partners=partners,
            temperature=SPEC.student_temperature,
        )

    def with_logits(features: Tensor, prototypes: Tensor) -> Tensor:
        return formula(features, prototypes, theirs, their)

    def in_float64(features: Tensor, prototypes: Tensor) -> Tensor:
        return formula(features, prototypes, theirs.double(), their.double())

    own = leaves(features, prototypes)
    ways = [
        way("eager", with_logits, leaves(features, prototypes)),
        way("torch.compile", compiled(with_logits), leaves(features, prototypes)),
        Way(
            "without logits, PyTorch",
            switched("off", lambda: without_logits(*own)),
            own,
            ours=device.type != "cuda",
        ),
    ]
    if device.type == "cuda":
        ways.append(
            Way(
                "without logits, kernels",
                with_kernels("head_loss", lambda: without_logits(*own)),
                own,
                ours=True,
            )
        )
    given, product = (
        2 * (features.nbytes + prototypes.nbytes),
        2 * size.rows * size.prototypes * DEPTH,
    )
    return Case(
        "head loss",
        f"{size}, width {DEPTH}, float32",
        way("exact", in_float64, exact(features, prototypes)),
        tuple(ways),
        tolerance=1e-3,
        products=precise(device),
        # the teacher's logits and the student's; the gradients of features and prototypes
        work={FORWARD: Work(given, 2 * product), BACKWARD: Work(given, 2 * product)},
        goals=GOALS if size == SIZES["paper"][-1] else (),
        split=False,
    )


def formula(features: Tensor, prototypes: Tensor, theirs: Tensor, their: Tensor) -> Tensor:
    """The textbook: targets by Sinkhorn-Knopp in logarithms, then the cross-entropy, summed over
    rows."""
    with torch.no_grad():
        log = theirs @ their.mT / SPEC.teacher_temperature  # N K
        for _ in range(SPEC.iterations):
            log = log - log.logsumexp(dim=0, keepdim=True)
            log = log - log.logsumexp(dim=1, keepdim=True)
        targets = log.exp()  # N K
    student = (features @ prototypes.mT / SPEC.student_temperature).log_softmax(dim=-1)  # N K
    return -(targets * student).sum()
