"""One training step, readable from top to bottom."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.profiler import record_function

from data.sample import Batch
from engine import zero
from engine.guard import all_finite
from engine.objective import Objective, to_views
from engine.schedules import Schedules, StepSchedule
from engine.teacher import EmaTeacher
from models.backbone import expert_load
from models.pretraining import Pretraining
from models.reducer import Reducer


SPAN = "step/"  # how the names of a step's parts begin in a profiler's trace


def part(name: str) -> record_function:
    """A span that torch's profiler shows under this name; without a profiler it does nothing."""
    return record_function(SPAN + name)


@dataclass
class StepReport:
    """What one step did; every number is over the global batch."""

    applied: bool
    schedule: StepSchedule
    terms: dict[str, float]  # loss terms, unweighted, and "total"
    statistics: dict[str, float]  # teacher entropies, prototype use
    gradient_norm: float
    expert_load: Tensor | None  # layers, modalities, E: tokens sent to each expert
    skipped_keys: list[str] = field(default_factory=list)  # this rank's samples, if the step was not applied

    def entropies(self) -> dict[str, float]:
        """Mean entropy of the teacher's targets, in nats, of every head that had any: a batch may lack a modality."""
        used = [name for name, share in self.statistics.items() if name.endswith("/used") and share]
        heads = [name.removesuffix("/used") for name in used]
        return {head: self.statistics[f"{head}/entropy"] for head in heads}


class Step:
    """Teacher targets, one student call, losses, finite vote, backward, optimizer, teacher and prototypes."""

    def __init__(self, engine, ema: EmaTeacher, teacher: Pretraining, objective: Objective, schedules: Schedules,
                 reducer: Reducer, device: torch.device):
        self.engine = engine
        self.student: Pretraining = engine.module
        self.ema = ema
        self.teacher = teacher
        self.objective = objective
        self.schedules = schedules
        self.reducer = reducer
        self.device = device

    def __call__(self, batch: Batch) -> StepReport:
        """Train on one rank's slice of step ``batch.step``. Every rank must call with the same step."""
        with part("inputs"):
            now = self.schedules.at(batch.step)
            zero.set_schedule(self.engine, now.lr, now.weight_decay, now.last_layer_lr)
            views = to_views(batch, self.device)

        with part("teacher"), torch.no_grad():
            targets = self.teacher(views)
        with part("student"):
            outputs = self.engine(views)
        with part("losses"):
            losses = self.objective(outputs, targets, batch, now.teacher_temperature)

        # The vote comes before backward: a NaN on one rank must not reach any rank's gradients, teacher or prototypes.
        with part("vote"):
            finite = all_finite(losses.total, self.reducer)
        applied = False
        if finite:
            with part("backward"):
                self.engine.backward(losses.total)
            with part("optimizer"):
                self.engine.step()
                applied = zero.was_applied(self.engine)
        if applied:
            with part("teacher's average"):
                self.ema.update(now.momentum)
            with part("prototypes, centres"):
                self.student.update_context(outputs, self.reducer)
                self.objective.update_centres(losses)
        with part("report"):
            return StepReport(
                applied=applied,
                schedule=now,
                terms=self._average(losses.terms),
                statistics={name: float(value) for name, value in losses.statistics.items()},
                gradient_norm=zero.gradient_norm(self.engine) if finite else float("nan"),
                expert_load=self._load(outputs),
                skipped_keys=[] if applied else list(batch.keys),
            )

    def _average(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Mean over ranks of this rank's shares: the values over the global batch."""
        stacked = torch.stack([value.detach().float() for value in terms.values()])  # terms
        mean = self.reducer.sum(stacked) / self.reducer.world_size
        return dict(zip(terms, mean.tolist()))

    def _load(self, outputs) -> Tensor | None:
        if not outputs.routings:
            return None
        spec = self.student.spec
        load = expert_load(outputs.routings, outputs.layouts, spec.moe.experts, list(spec.modalities))
        return self.reducer.sum(load).cpu()  # layers modalities E
