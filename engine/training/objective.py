"""Which view meets which loss: from the outputs of student and teacher to one number to minimise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.stream.collate import apply_colours
from data.stream.sample import Batch
from data.stream.settings import GLOBAL
from engine.config.settings import LossSettings
from engine.errors import ConfigError
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
from models.pretraining.losses.semantic_aggregation import semantic_aggregation
from models.pretraining.model import Outputs, Pretraining
from models.reducer import Reducer

QUERIES = "queries"


def to_views(batch: Batch, device: torch.device) -> dict[str, Views]:
    """What the model sees of a batch, by view size."""
    days = {name: values.to(device, non_blocking=True) for name, values in batch.days.items()}
    region = batch.region.to(device, non_blocking=True)
    found = {}
    for size, views in batch.views.items():
        images = {name: x.to(device, non_blocking=True) for name, x in views.images.items()}
        valid = {name: x.to(device, non_blocking=True) for name, x in views.valid.items()}
        if views.colours is not None and "hr" in images:
            images["hr"] = apply_colours(views, images["hr"], valid["hr"])
        found[size] = Views(images, valid, days, region)
    return found


@dataclass
class Losses:
    """One step's losses; terms are this rank's shares, their average over ranks is the value of the
    global batch."""

    total: Tensor  # what backward starts from
    terms: dict[str, Tensor]  # unweighted, and "total"
    statistics: dict[str, Tensor]  # of the teacher, equal on all ranks
    centres: dict[str, Tensor]  # batch means for the running centres; empty with Sinkhorn-Knopp


class Objective:
    """lambda_1 MGCL + lambda_2 QSACL + lambda_3 ITA + the mixtures' balance loss (supplement,
    sections A and C)."""

    def __init__(
        self,
        settings: LossSettings,
        student: Pretraining,
        teacher: Pretraining,
        text: Tensor,
        reducer: Reducer,
    ):
        self.settings = settings
        self.student, self.teacher = student, teacher
        self.text = text  # K D
        self.reducer = reducer
        prototypes = student.spec.head.prototypes
        names = [f"{feature}/{level}" for feature in student.heads for level in LEVELS] + [QUERIES]
        self.centres = (
            {}
            if settings.centring == "sinkhorn"
            else {
                name: Centre(prototypes, settings.centre_momentum).to(text.device) for name in names
            }
        )

    def __call__(
        self, student: Outputs, teacher: Outputs, batch: Batch, temperature: float
    ) -> Losses:
        """Losses of one rank's slice; ``temperature`` is the teacher's at this step. Collective."""
        losses = Losses(self.text.new_zeros(()), {}, {}, {})
        dino = DinoSpec(
            self.settings.student_temperature, temperature, self.settings.sinkhorn_iterations
        )
        affine = {
            size: views.affine.to(self.text.device, non_blocking=True)
            for size, views in batch.views.items()
        }
        for feature in self.student.heads:
            self._granularity(losses, feature, student, teacher, affine, dino)
        self._aggregation(losses, student, teacher, dino)
        self._add(losses, "ita", self._alignment(student, batch), self.settings.ita)
        if student.routings:
            balance = torch.stack([routing.balance for routing in student.routings]).sum()
            self._add(losses, "moe_balance", balance, self.settings.moe_balance)
        if self.settings.koleo:
            self._add(losses, "koleo", self._spread(student), self.settings.koleo)
        losses.terms["total"] = losses.total
        return losses

    def update_centres(self, losses: Losses) -> None:
        """Move the running centres; to be called only if the step was applied."""
        for name, mean in losses.centres.items():
            self.centres[name].update(mean)

    def state(self) -> dict[str, Tensor]:
        """Running centres by name, for a checkpoint; empty with Sinkhorn-Knopp."""
        return {name: centre.value for name, centre in self.centres.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave. Raises ConfigError if the names differ."""
        if state.keys() != self.centres.keys():
            raise ConfigError(
                f"loss.centring: the checkpoint has {len(state)} running centres, this run "
                f"{len(self.centres)}; continue with the centring it was saved with"
            )
        for name, value in state.items():
            self.centres[name].value.copy_(value)

    def _granularity(
        self,
        losses: Losses,
        feature: str,
        student: Outputs,
        teacher: Outputs,
        affine: dict[str, Tensor],
        dino: DinoSpec,
    ) -> None:
        """Equation 5 for one feature: student views of all sizes against the teacher's global
        views."""

        def view_maps(outputs: Outputs, size: str) -> ViewMaps:
            found = outputs.features[size]
            return ViewMaps(found.maps[feature], found.valid[feature], affine[size])

        spec = GranularitySpec(dino, self.settings.clusters, self.settings.cluster_epsilon)
        centres = (
            {level: self.centres[f"{feature}/{level}"] for level in LEVELS}
            if self.centres
            else None
        )
        found = multi_granularity(
            {size: view_maps(student, size) for size in student.features},
            view_maps(teacher, GLOBAL),
            student_heads=self.student.heads[feature],
            teacher_heads=self.teacher.heads[feature],
            spec=spec,
            reducer=self.reducer,
            centres=centres,
        )
        for level in LEVELS:
            self._add(losses, f"mgcl/{feature}/{level}", found.losses[level], self.settings.mgcl)
            _note(losses, f"{feature}/{level}", found.statistics[level])
        losses.centres |= {f"{feature}/{level}": mean for level, mean in found.centres.items()}

    def _aggregation(
        self, losses: Losses, student: Outputs, teacher: Outputs, dino: DinoSpec
    ) -> None:
        """Queries of global views against those of local views, both ways."""
        valid = {
            size: found.valid[FUSED].flatten(2).any(2) for size, found in student.features.items()
        }  # B V
        found = semantic_aggregation(
            student.queries,
            teacher.queries,
            valid=valid,
            student_head=self.student.query_head,
            teacher_head=self.teacher.query_head,
            spec=dino,
            reducer=self.reducer,
            centre=self.centres.get(QUERIES),
        )
        self._add(losses, "qsacl", found.loss, self.settings.qsacl)
        _note(losses, QUERIES, found.statistics)
        if found.centre is not None:
            losses.centres[QUERIES] = found.centre

    def _alignment(self, student: Outputs, batch: Batch) -> Tensor:
        """Equation 7 on the student's fused maps of all views."""
        views = {}
        for size, found in student.features.items():
            fused = found.maps[FUSED][:, :, 0]  # B V g g D
            projected = self.student.text_projection(
                fused.to(self.student.text_projection.weight.dtype)
            )
            labels = batch.views[size].labels  # B V L L
            check_labels(labels, len(self.text))
            views[size] = LabelledViews(
                projected, found.valid[FUSED][:, :, 0], labels.to(fused.device, non_blocking=True)
            )
        return image_text(
            views, self.text, temperature=self.settings.text_temperature, reducer=self.reducer
        )

    def _spread(self, student: Outputs) -> Tensor:
        """KoLeo on the fused image vectors of the first global view: one a sample, so that views
        may agree."""
        found = student.features[GLOBAL]
        vectors, present = average(
            found.maps[FUSED][:, 0, 0], found.valid[FUSED][:, 0, 0]
        )  # B D, B
        return koleo(vectors, present, self.reducer)

    @staticmethod
    def _add(losses: Losses, name: str, value: Tensor, weight: float) -> None:
        """Note a term and add it, weighted, to the total. A weight of 0 keeps the graph, so that
        ranks stay alike."""
        losses.terms[name] = value
        losses.total = losses.total + weight * value


def _note(losses: Losses, name: str, found: Statistics) -> None:
    """The teacher's statistics under one head's name."""
    losses.statistics |= {f"{name}/{key}": value for key, value in found._asdict().items()}
