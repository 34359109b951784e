"""The learning loss of one head: with rows x prototypes logits as usual, and without them.

The second is models/pretraining/losses/head_loss.py.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, BOTH, FORWARD, Candidate, Case, Goal, Work, exact, leaves
from engine.bench.cases.candidates import (
    candidate,
    compiled,
    draw,
    precise,
    switched,
    with_kernels,
)
from models.pretraining.losses.dino import DinoSpec
from models.pretraining.losses.head_loss import Partners, head_loss
from models.pretraining.losses.targets import head_targets
from models.reducer import Reducer

DEPTH = 256
SPEC = DinoSpec(student_temperature=0.1, teacher_temperature=0.04, iterations=3)


class Size(NamedTuple):
    """Rows of student and teacher, each student's row with one partner."""

    rows: int
    prototypes: int

    def __str__(self) -> str:
        return f"{self.rows} rows, K {self.prototypes}"


SIZES = {
    "paper": [Size(1024, 65536), Size(4096, 8192), Size(4096, 65536)],
    "small": [Size(256, 8192), Size(256, 65536), Size(1024, 8192), Size(1024, 65536)],
    "tiny": [Size(24, 96)],
}
GOALS = (Goal(BOTH, "memory", 0.1, "eager"), Goal(BOTH, "speed", 1.3, "eager"))


class Teacher(NamedTuple):
    """What the teacher's side of the loss is made of."""

    features: Tensor  # N D
    prototypes: Tensor  # K D


def case(size: Size, device: torch.device) -> Case:
    """Sinkhorn-Knopp targets and cross-entropy, with gradients of the student's tensors."""
    features = _unit_vectors(size.rows, device, seed=0)  # N D
    prototypes = _unit_vectors(size.prototypes, device, seed=2)  # K D
    teacher = Teacher(
        _unit_vectors(size.rows, device, seed=1), _unit_vectors(size.prototypes, device, seed=3)
    )
    mask = torch.ones(size.rows, dtype=torch.bool, device=device)  # N
    partners = Partners.equal(torch.arange(size.rows, device=device)[:, None])  # N 1
    reducer = Reducer()

    def without_logits(features: Tensor, prototypes: Tensor) -> Tensor:
        targets = head_targets(
            teacher.features, teacher.prototypes, mask=mask, spec=SPEC, reducer=reducer
        )
        return head_loss(
            features,
            prototypes,
            targets=targets,
            partners=partners,
            temperature=SPEC.student_temperature,
        )

    def with_logits(features: Tensor, prototypes: Tensor) -> Tensor:
        return formula(features, prototypes, teacher)

    def in_float64(features: Tensor, prototypes: Tensor) -> Tensor:
        doubled = Teacher(teacher.features.double(), teacher.prototypes.double())
        return formula(features, prototypes, doubled)

    own = leaves(features, prototypes)

    def call_own() -> Tensor:
        return without_logits(*own)

    has_kernels = device.type == "cuda"
    candidates = [
        candidate("eager", with_logits, leaves(features, prototypes)),
        candidate("torch.compile", compiled(with_logits), leaves(features, prototypes)),
        Candidate("without logits, PyTorch", switched("off", call_own), own, ours=not has_kernels),
    ]
    if has_kernels:
        call = with_kernels("head_loss", call_own)
        candidates.append(Candidate("without logits, kernels", call, own, ours=True))
    input_bytes = 2 * (features.nbytes + prototypes.nbytes)
    product = 2 * size.rows * size.prototypes * DEPTH
    return Case(
        "head loss",
        f"{size}, width {DEPTH}, float32",
        candidate("exact", in_float64, exact(features, prototypes)),
        tuple(candidates),
        tolerance=1e-3,
        products=precise(device),
        # the teacher's logits and the student's; the gradients of features and prototypes
        work={FORWARD: Work(input_bytes, 2 * product), BACKWARD: Work(input_bytes, 2 * product)},
        goals=GOALS if size == SIZES["paper"][-1] else (),
        split=False,
    )


def _unit_vectors(rows: int, device: torch.device, *, seed: int) -> Tensor:
    """Random directions: (rows, DEPTH)."""
    return F.normalize(draw(rows, DEPTH, device=device, seed=seed), dim=-1)


def formula(features: Tensor, prototypes: Tensor, teacher: Teacher) -> Tensor:
    """The textbook's loss: targets by Sinkhorn-Knopp in logarithms, then the cross-entropy.

    Args:
        features: Of the student, (N, D).
        prototypes: Of the student, (K, D).
        teacher: Features and prototypes of the teacher.

    Returns:
        The sum over rows.
    """
    with torch.no_grad():
        log = teacher.features @ teacher.prototypes.mT / SPEC.teacher_temperature  # N K
        for _ in range(SPEC.iterations):
            log = log - log.logsumexp(dim=0, keepdim=True)
            log = log - log.logsumexp(dim=1, keepdim=True)
        targets = log.exp()  # N K
    student = (features @ prototypes.mT / SPEC.student_temperature).log_softmax(dim=-1)  # N K
    return -(targets * student).sum()
