"""One training step, readable from top to bottom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from data.stream.sample import Batch
from engine.checkpoint.buffers import buffers
from engine.distributed import zero
from engine.distributed.replicas import Replicas
from engine.distributed.teacher import EmaTeacher
from engine.resilience.guard import all_finite
from engine.resilience.progress import PROGRESS
from engine.training.context import ContextFigures, drop_context
from engine.training.loss_terms import ENTROPY, TOTAL, USED, LossTerm, TeacherHead
from engine.training.objective import Losses, Objective, hide_frames, to_views
from engine.training.schedules import Schedules, StepSchedule
from engine.training.trouble import Trouble, find_trouble, guilty, own_keys
from models.backbone.stochastic_depth import Draw
from models.features import Views
from models.fusion.geo_context import ContextUpdate
from models.moe.loads import TokenKind, dropped_counts, expert_load
from models.pretraining.model import Outputs, Pretraining
from models.reducer import Reducer

SPAN = "step/"  # how the names of a step's parts begin in a profiler's trace


def part(name: str) -> record_function:
    """A span that torch's profiler shows under this name. Heartbeats and errors name it too."""
    PROGRESS.enter(name)
    return record_function(SPAN + name)


@dataclass
class StepReport:
    """What one step did. Every number is over the global batch."""

    applied: bool
    schedule: StepSchedule
    terms: dict[str, float]  # loss terms by name, unweighted, and the weighted "total"
    weights: dict[str, float]  # of the loss terms; smaller where a head had few rows
    statistics: dict[str, float]  # teacher entropies, prototype use
    gradient_norm: float  # NaN if the loss was not finite
    expert_load: Tensor | None  # layers, modalities, E: tokens sent to each expert
    # Share of the tokens that found their expert full, over all layers; without absent kinds.
    dropped: dict[TokenKind, float] = field(default_factory=dict)
    context: ContextFigures | None = None  # None if the prototypes were not moved
    # Where the loss was not finite first; empty if it was finite.
    trouble: list[Trouble] = field(default_factory=list)
    # This rank's samples, if the step was not applied. Where trouble began elsewhere: none.
    skipped_keys: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The weighted sum of all terms."""
        return self.terms[TOTAL]

    def entropies(self) -> dict[str, float]:
        """Mean entropy of the teacher's targets, in nats, of every head that had any.

        A batch may lack a modality.
        """
        entropies = {}
        for name, share in self.statistics.items():
            head, _, kind = name.rpartition("/")
            if kind == USED and share != 0:
                entropies[head] = self.statistics[TeacherHead(head).statistic(ENTROPY)]
        return entropies

    def measured_terms(self) -> list[str]:
        """Names of the loss terms that the batch, which may lack a modality, could measure."""
        names = []
        for name in self.weights:
            if LossTerm(name).is_measured(self.terms[name], self.statistics):
                names.append(name)
        return names

    def mean_loss(self) -> float:
        """Weighted mean of the measured terms.

        Unlike the total it does not jump when a batch lacks a modality.
        """
        measured = self.measured_terms()
        weight = sum(self.weights[name] for name in measured)
        if weight == 0:
            return 0.0
        return sum(self.weights[name] * self.terms[name] for name in measured) / weight


@dataclass
class _Figures:
    """What ``Step`` fetches from the device; fields as in ``StepReport``."""

    terms: dict[str, float]
    weights: dict[str, float] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)
    expert_load: Tensor | None = None
    dropped: dict[TokenKind, float] = field(default_factory=dict)
    context: ContextFigures | None = None


class Step:
    """One student call, teacher targets, losses, finite vote, backward, optimizer, teacher."""

    def __init__(
        self,
        *,
        engine: zero.DeepSpeedEngine,
        ema: EmaTeacher,
        objective: Objective,
        schedules: Schedules,
        reducer: Reducer,
        device: torch.device,
        seed: int = 0,
        compare_ranks_every: int = 0,
    ):
        """Take the objects of ``assemble``; ``compare_ranks_every`` is in steps, 0: never."""
        self.engine = engine
        self.student: Pretraining = engine.module
        self.ema = ema
        self.teacher = objective.teacher
        self.objective = objective
        self.schedules = schedules
        self.reducer = reducer
        self.device = device
        self.seed = seed
        self.compare_ranks_every = compare_ranks_every
        self.replicas = Replicas(ema)

    def __call__(self, batch: Batch) -> StepReport:
        """Train on one rank's slice of step ``batch.step``.

        Every rank must call with the same step.
        """
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
            seen = self._student_views(views, batch)
            outputs = self.engine(seen, Draw(self.seed, batch.step))
        with part("teacher"), torch.no_grad():
            targets = self.teacher(views)
        with part("losses"):
            losses = self.objective(outputs, targets, batch, temperature=now.teacher_temperature)

        # The vote comes before backward: a NaN on one rank must not reach any rank's gradients,
        # teacher or prototypes.
        with part("vote"):
            finite = all_finite(losses.total, self.reducer)
        trouble: list[Trouble] = []
        if not finite:
            with part("search for the cause"):
                trouble = self._find_trouble(seen, batch, losses)
        applied = False
        context = None
        if finite:
            with part("backward"):
                self.engine.backward(losses.total)
            # Before the update, which would spread what one rank has wrong to all.
            if _is_due(batch.step, self.compare_ranks_every):
                self.compare_ranks()
            with part("optimizer"):
                self.engine.step()
                applied = zero.was_applied(self.engine)
        if applied:
            with part("teacher's average"):
                self.ema.update(now.momentum)
            with part("prototypes, centres"):
                context = self.student.update_context(outputs, self.reducer)
                self.objective.update_centres(losses)

        with part("report"):
            figures = self._fetch(losses, outputs, context)
            report = self._report(batch, figures, now, finite=finite, applied=applied)
        report.trouble = trouble
        if trouble:
            report.skipped_keys = own_keys(trouble, zero.ranks().rank)
        return report

    def compare_ranks(self, values: Mapping[str, Any] | None = None) -> None:
        """Check that all ranks have the same weights, buffers, centres and ``values`` (JSON).

        Every rank must call it, between two updates.

        Raises:
            ReplicaError: They differ; raised on all ranks.
        """
        with part("comparison of ranks"):
            self.ema.wait()
            shared = {}
            for name, buffer in buffers(self.student, self.teacher).items():
                shared[f"the buffer {name}"] = buffer
            for head, centre in self.objective.state().items():
                shared[f"the centre of {head}"] = centre
            self.replicas.compare(shared, values or {})

    def _find_trouble(self, seen: dict[str, Views], batch: Batch, losses: Losses) -> list[Trouble]:
        """The ranks on which the first value that is not finite arose."""

        def forward() -> Outputs:
            return self.student(seen, Draw(self.seed, batch.step))

        rank = zero.ranks().rank
        return guilty(find_trouble(self.student, forward, batch, losses.terms, rank=rank))

    def _fetch(self, losses: Losses, outputs: Outputs, context: ContextUpdate | None) -> _Figures:
        """The figures of a step, with one exchange and one transfer to the host.

        Terms are averaged over ranks, and tokens summed. Weights and statistics are equal on all
        ranks.

        Raises:
            FloatingPointError: The geo context had to refuse its update; raised on all ranks.
        """
        terms = {**losses.terms, TOTAL: losses.total}
        summed = [torch.stack([value.detach().float() for value in terms.values()]).double()]
        load = self._expert_load(outputs)  # layers modalities E
        if load is not None:
            summed.append(load.flatten().double())  # integers, exact in float64
        fates = dropped_counts(outputs.routings)
        summed += [counts.double() for counts in fates.values()]
        if context is not None:
            summed.append(torch.stack(context.spread).double())
        pieces = [self.reducer.sum(torch.cat(summed))]
        pieces.append(torch.stack(list(losses.weights.values())).double())
        if losses.statistics:
            pieces.append(torch.stack(list(losses.statistics.values())).double())
        if context is not None:
            pieces.append(context.lost_regions[None].double())
        numbers = iter(torch.cat(pieces).tolist())

        world_size = self.reducer.world_size
        figures = _Figures(terms={name: next(numbers) / world_size for name in terms})
        if load is not None:
            counts = list(islice(numbers, load.numel()))
            figures.expert_load = torch.tensor(counts, dtype=torch.float64).long().view(load.shape)
        for kind in fates:
            present = next(numbers)
            dropped = next(numbers)
            if present > 0:
                figures.dropped[kind] = dropped / present
        if context is not None:
            figures.context = ContextFigures.of(list(islice(numbers, len(context.spread))))
        figures.weights = {name: next(numbers) for name in losses.weights}
        figures.statistics = {name: next(numbers) for name in losses.statistics}
        if context is not None and next(numbers) > 0:
            raise FloatingPointError(
                "geo context: expected finite new prototypes, found others; none were written and "
                "the last checkpoint is sound; look at the samples of this step"
            )
        return figures

    def _student_views(self, views: dict[str, Views], batch: Batch) -> dict[str, Views]:
        """The views as the student sees them; the teacher sees all."""
        seen = hide_frames(views, batch)
        context = self.student.spec.context
        if context is None:
            return seen
        return drop_context(seen, batch, share=context.drop, seed=self.seed)

    def _report(
        self, batch: Batch, figures: _Figures, now: StepSchedule, *, finite: bool, applied: bool
    ) -> StepReport:
        """The report of a step."""
        gradient_norm = float("nan")
        if finite:
            gradient_norm = zero.gradient_norm(self.engine)
        skipped_keys: list[str] = []
        if not applied:
            skipped_keys = list(batch.keys)
        return StepReport(
            applied=applied,
            schedule=now,
            terms=figures.terms,
            weights=figures.weights,
            statistics=figures.statistics,
            gradient_norm=gradient_norm,
            expert_load=figures.expert_load,
            dropped=figures.dropped,
            context=figures.context,
            skipped_keys=skipped_keys,
        )

    def _expert_load(self, outputs: Outputs) -> Tensor | None:
        """Tokens of this rank that each expert was sent: layers, modalities, E."""
        spec = self.student.spec
        if spec.moe is None or not outputs.routings:
            return None
        return expert_load(
            outputs.routings, experts=spec.moe.experts, modalities=list(spec.modalities)
        )


def _is_due(step: int, every: int) -> bool:
    """Whether ``step`` is one of each ``every`` steps, the last of them; with 0 none is."""
    return every > 0 and step % every == every - 1
