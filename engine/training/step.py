"""One training step, readable from top to bottom."""

from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor
from torch.profiler import record_function

from data.stream.sample import Batch
from engine.distributed import zero
from engine.distributed.teacher import EmaTeacher
from engine.resilience.guard import all_finite
from engine.training.objective import Losses, Objective, to_views
from engine.training.schedules import Schedules, StepSchedule
from models.backbone.stages import expert_load
from models.backbone.stochastic_depth import Draw
from models.pretraining.model import Outputs, Pretraining
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
    skipped_keys: list[str] = field(
        default_factory=list
    )  # this rank's samples, if the step was not applied

    def entropies(self) -> dict[str, float]:
        """Mean entropy of the teacher's targets, in nats, of every head that had any: a batch may
        lack a modality."""
        used = [name for name, share in self.statistics.items() if name.endswith("/used") and share]
        heads = [name.removesuffix("/used") for name in used]
        return {head: self.statistics[f"{head}/entropy"] for head in heads}


class Step:
    """One student call, teacher targets, losses, finite vote, backward, optimizer, teacher and
    prototypes."""

    def __init__(
        self,
        engine,
        ema: EmaTeacher,
        teacher: Pretraining,
        objective: Objective,
        schedules: Schedules,
        reducer: Reducer,
        device: torch.device,
        seed: int = 0,
    ):
        self.engine = engine
        self.student: Pretraining = engine.module
        self.ema = ema
        self.teacher = teacher
        self.objective = objective
        self.schedules = schedules
        self.reducer = reducer
        self.device = device
        self.seed = seed

    def __call__(self, batch: Batch) -> StepReport:
        """Train on one rank's slice of step ``batch.step``. Every rank must call with the same
        step."""
        with part("inputs"):
            now = self.schedules.at(batch.step)
            zero.set_schedule(
                self.engine,
                lr=now.lr,
                weight_decay=now.weight_decay,
                last_layer_lr=now.last_layer_lr,
            )
            views = to_views(batch, self.device)

        # The student comes first: meanwhile the ranks exchange the teacher's weights of the last
        # step.
        with part("student"):
            outputs = self.engine(views, Draw(self.seed, batch.step))
        with part("teacher"), torch.no_grad():
            targets = self.teacher(views)
        with part("losses"):
            losses = self.objective(outputs, targets, batch, now.teacher_temperature)

        # The vote comes before backward: a NaN on one rank must not reach any rank's gradients,
        # teacher or prototypes.
        with part("vote"):
            finite = all_finite(losses.total, self.reducer)
        applied, lost_regions = False, None
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
                lost_regions = self.student.update_context(outputs, self.reducer)
                self.objective.update_centres(losses)
        with part("report"):
            terms, statistics, load = self._fetch(losses, outputs, lost_regions)
            return StepReport(
                applied=applied,
                schedule=now,
                terms=terms,
                statistics=statistics,
                gradient_norm=zero.gradient_norm(self.engine) if finite else float("nan"),
                expert_load=load,
                skipped_keys=[] if applied else list(batch.keys),
            )

    def _fetch(
        self, losses: Losses, outputs: Outputs, lost_regions: Tensor | None
    ) -> tuple[dict[str, float], dict[str, float], Tensor | None]:
        """Terms (their mean over ranks), statistics and expert load, with one exchange and one
        transfer to the host.

        Raises FloatingPointError, on all ranks alike, if the geo context had to refuse its update.
        """
        load = self._load(outputs)  # layers modalities E
        shares = [torch.stack([value.detach().float() for value in losses.terms.values()])]  # terms
        shares += [] if load is None else [load.flatten()]  # integers, exact in float64
        shares = self.reducer.sum(torch.cat([share.double() for share in shares]))
        equal = (
            [torch.stack(list(losses.statistics.values()))] if losses.statistics else []
        )  # on all ranks
        equal += [] if lost_regions is None else [lost_regions[None]]
        values = iter(torch.cat([shares, *(value.double() for value in equal)]).tolist())
        terms = {name: value / self.reducer.world_size for name, value in zip(losses.terms, values)}
        counts = [] if load is None else list(islice(values, load.numel()))
        statistics = dict(zip(losses.statistics, islice(values, len(losses.statistics))))
        if any(values):
            raise FloatingPointError(
                "geo context: expected finite new prototypes, found others; none were written and "
                "the last checkpoint is sound; look at the samples of this step"
            )
        return (
            terms,
            statistics,
            None if load is None else torch.tensor(counts).long().view(load.shape),
        )

    def _load(self, outputs: Outputs) -> Tensor | None:
        """Tokens of this rank that each expert was sent: layers, modalities, E."""
        if not outputs.routings:
            return None
        spec = self.student.spec
        return expert_load(
            outputs.routings, outputs.layouts, spec.moe.experts, list(spec.modalities)
        )
