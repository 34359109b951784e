"""Which views each loss compares: from the outputs of student and teacher to one number."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from data.stream.collate import apply_colours
from data.stream.sample import Batch
from data.stream.settings import GLOBAL
from engine.config.settings import LossSettings
from engine.errors import ConfigError
from engine.training.loss_terms import (
    ITA,
    KOLEO,
    MOE_BALANCE,
    QSACL,
    QUERIES,
    SPREAD,
    LossTerm,
    TeacherHead,
)
from models.features import FUSED, Views
from models.pretraining.losses.dino import Centre, DinoSpec, Statistics
from models.pretraining.losses.image_text import LabelledViews, check_labels, image_text
from models.pretraining.losses.koleo import koleo
from models.pretraining.losses.multi_granularity import (
    LEVELS,
    GranularitySpec,
    ViewMaps,
    average,
    multi_granularity,
)
from models.pretraining.losses.semantic_aggregation import ViewQueries, semantic_aggregation
from models.pretraining.model import Outputs, Pretraining
from models.reducer import Reducer


def to_views(batch: Batch, device: torch.device) -> dict[str, Views]:
    """What the model sees of a batch, by view size, on a device."""
    region = batch.region.to(device, non_blocking=True)
    by_size = {}
    for size, views in batch.views.items():
        images = _on_device(views.images, device)
        valid = _on_device(views.valid, device)
        if views.colours is not None and "hr" in images:
            images["hr"] = apply_colours(views, images["hr"], valid["hr"])
        days = _on_device(views.days, device)
        by_size[size] = Views(images, valid, days, region)
    return by_size


def hide_frames(views: dict[str, Views], batch: Batch) -> dict[str, Views]:
    """What the student sees of the views of ``to_views``: some sensors and frames are absent."""
    by_size = {}
    for size, inputs in views.items():
        seen = _on_device(batch.views[size].seen, inputs.region.device)
        valid = {}
        for name, mask in inputs.valid.items():
            valid[name] = mask & seen[name][..., None, None]  # B V T H W
        by_size[size] = replace(inputs, valid=valid)
    return by_size


def _on_device(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


@dataclass
class Losses:
    """One step's losses.

    Terms are this rank's shares: their average over ranks is the value of the global batch.
    """

    total: Tensor  # the weighted sum that backward starts from
    terms: dict[str, Tensor] = field(default_factory=dict)  # unweighted, by the term's name
    weights: dict[str, Tensor] = field(default_factory=dict)  # by the term's name
    # Of the teacher, equal on all ranks, by ``TeacherHead.statistic``.
    statistics: dict[str, Tensor] = field(default_factory=dict)
    # Batch means for the running centres, by the head's name; empty with Sinkhorn-Knopp.
    centres: dict[str, Tensor] = field(default_factory=dict)

    def add(self, term: LossTerm, value: Tensor, weight: float | Tensor) -> None:
        """Note a term and add it, weighted, to the total.

        A weight of 0 keeps the graph, so that all ranks have the same one.
        """
        self.terms[term.name] = value
        if not isinstance(weight, Tensor):
            weight = torch.full_like(self.total, weight)
        self.weights[term.name] = weight
        self.total = self.total + weight * value

    def note(self, head: TeacherHead, statistics: Statistics) -> None:
        """Keep the teacher's statistics of a head."""
        for kind, value in statistics._asdict().items():
            self.statistics[head.statistic(kind)] = value


class Objective:
    """lambda_1 MGCL + lambda_2 QSACL + lambda_3 ITA + the balance loss of the MoE blocks.

    Source: supplement, sections A and C.
    """

    def __init__(
        self,
        settings: LossSettings,
        *,
        student: Pretraining,
        teacher: Pretraining,
        text: Tensor,
        reducer: Reducer,
    ):
        """Take the models and what the losses compare with.

        Args:
            settings: Weights and temperatures.
            student: The model that learns.
            teacher: The model that gives targets.
            text: Class embeddings, K D.
            reducer: Collectives over the global batch.
        """
        self.settings = settings
        self.student = student
        self.teacher = teacher
        self.text = text  # K D
        self.reducer = reducer
        self.centres: dict[str, Centre] = {}  # by the head's name; empty with Sinkhorn-Knopp
        if settings.centring == "mean":
            for head in self._heads():
                centre = Centre(student.spec.head.prototypes, settings.centre_momentum)
                self.centres[head.name] = centre.to(text.device)

    def __call__(
        self, student: Outputs, teacher: Outputs, batch: Batch, *, temperature: float
    ) -> Losses:
        """Losses of one rank's slice. It is a collective call.

        Args:
            student: The student's outputs for the batch.
            teacher: The teacher's.
            batch: This rank's slice.
            temperature: The teacher's at this step.
        """
        settings = self.settings
        losses = Losses(self.text.new_zeros(()))
        dino = DinoSpec(settings.student_temperature, temperature, settings.sinkhorn_iterations)
        affine = {}
        for size, views in batch.views.items():
            affine[size] = views.affine.to(self.text.device, non_blocking=True)
        for feature in self.student.heads:
            student_maps = _view_maps(student, feature, affine)
            teacher_maps = _view_maps(teacher, feature, affine)
            self._add_granularity(losses, feature, student_maps, teacher_maps[GLOBAL], dino=dino)
        self._add_aggregation(losses, student, teacher, dino)
        losses.add(ITA, self._alignment(student, batch), settings.ita)
        if student.routings:
            balance = torch.stack([routing.balance for routing in student.routings]).sum()
            losses.add(MOE_BALANCE, balance, settings.moe_balance)
        if settings.koleo:
            losses.add(KOLEO, self._spread(student), settings.koleo)
        return losses

    def update_centres(self, losses: Losses) -> None:
        """Move the running centres. Call it only if the step was applied."""
        for head, mean in losses.centres.items():
            self.centres[head].update(mean)

    def state(self) -> dict[str, Tensor]:
        """Running centres by the head's name, for a checkpoint; empty with Sinkhorn-Knopp."""
        return {head: centre.value for head, centre in self.centres.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave.

        Raises:
            ConfigError: The names differ, because the centring does.
        """
        if state.keys() != self.centres.keys():
            raise ConfigError(
                f"loss.centring: the checkpoint has {len(state)} running centres, this run "
                f"{len(self.centres)}; continue with the centring it was saved with"
            )
        for head, value in state.items():
            self.centres[head].value.copy_(value)

    def _weight(self, weight: float, statistics: Statistics) -> float | Tensor:
        """The weight of a term whose head may have few rows in this batch.

        Sinkhorn-Knopp gives N rows targets that hold at most log N nats, and one row a uniform one:
        its loss pulls the student away from what it has learned. Rows are counted over all ranks.
        """
        if self.centres:
            return weight
        return weight * (statistics.rows / self.settings.full_weight_rows).clamp(max=1)

    def _heads(self) -> list[TeacherHead]:
        """All heads that have targets."""
        heads = []
        for feature in self.student.heads:
            for level in LEVELS:
                heads.append(TeacherHead.of(feature, level))
        return [*heads, QUERIES]

    def _add_granularity(
        self,
        losses: Losses,
        feature: str,
        student: dict[str, ViewMaps],
        teacher: ViewMaps,
        *,
        dino: DinoSpec,
    ) -> None:
        """Equation 5 for one feature: student views of all sizes, global views of the teacher."""
        settings = self.settings
        heads = {level: TeacherHead.of(feature, level) for level in LEVELS}
        centres = None
        if self.centres:
            centres = {level: self.centres[head.name] for level, head in heads.items()}
        granularity = multi_granularity(
            student,
            teacher,
            student_heads=_heads_of(self.student, feature),
            teacher_heads=_heads_of(self.teacher, feature),
            spec=GranularitySpec(dino, settings.clusters, settings.cluster_epsilon),
            reducer=self.reducer,
            centres=centres,
        )
        for level, head in heads.items():
            statistics = granularity.statistics[level]
            weight = self._weight(settings.mgcl, statistics)
            losses.add(LossTerm.of(head), granularity.losses[level], weight)
            losses.note(head, statistics)
        losses.statistics[heads["object"].statistic(SPREAD)] = granularity.object_spread
        for level, mean in granularity.centres.items():
            losses.centres[heads[level].name] = mean

    def _add_aggregation(
        self, losses: Losses, student: Outputs, teacher: Outputs, dino: DinoSpec
    ) -> None:
        """Queries of global views against those of local views, both ways."""
        aggregation = semantic_aggregation(
            _view_queries(student),
            _view_queries(teacher),
            student_head=self.student.query_head,
            teacher_head=self.teacher.query_head,
            spec=dino,
            reducer=self.reducer,
            centre=self.centres.get(QUERIES.name),
        )
        weight = self._weight(self.settings.qsacl, aggregation.statistics)
        losses.add(QSACL, aggregation.loss, weight)
        losses.note(QUERIES, aggregation.statistics)
        if aggregation.centre is not None:
            losses.centres[QUERIES.name] = aggregation.centre

    def _alignment(self, student: Outputs, batch: Batch) -> Tensor:
        """Equation 7 on the student's fused maps of all views."""
        projection = self.student.text_projection
        views = {}
        for size, features in student.features.items():
            fused = features.maps[FUSED][:, :, 0]  # B V g g D
            valid = features.valid[FUSED][:, :, 0]  # B V g g
            labels = batch.views[size].labels  # B V L L
            check_labels(labels, len(self.text))
            views[size] = LabelledViews(
                projection(fused.to(projection.weight.dtype)),
                valid,
                labels.to(fused.device, non_blocking=True),
            )
        return image_text(
            views, self.text, temperature=self.settings.text_temperature, reducer=self.reducer
        )

    def _spread(self, student: Outputs) -> Tensor:
        """KoLeo on the fused image vectors of the first global view.

        One vector for each sample, so that two views of a sample may agree.
        """
        features = student.features[GLOBAL]
        maps = features.maps[FUSED][:, 0, 0]  # B g g D
        valid = features.valid[FUSED][:, 0, 0]  # B g g
        vectors, present = average(maps, valid)  # B D, B
        return koleo(vectors, present, self.reducer)


def _heads_of(model: Pretraining, feature: str) -> dict[str, nn.Module]:
    """The projection heads of a feature, by name."""
    return dict(model.heads[feature].named_children())


def _view_queries(outputs: Outputs) -> dict[str, ViewQueries]:
    """The queries of all views, by view size; a view without a valid cell has none."""
    queries = {}
    for size, features in outputs.features.items():
        valid = features.valid[FUSED].flatten(2).any(2)  # B V
        queries[size] = ViewQueries(outputs.queries[size], valid)
    return queries


def _view_maps(outputs: Outputs, feature: str, affine: dict[str, Tensor]) -> dict[str, ViewMaps]:
    """One feature of all views, by view size."""
    maps = {}
    for size, features in outputs.features.items():
        maps[size] = ViewMaps(features.maps[feature], features.valid[feature], affine[size])
    return maps
