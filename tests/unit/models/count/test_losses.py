"""The analytic FLOP counts of heads and losses against torch's counter."""

import pytest
import torch

from data.seeded import generator
from data.stream.settings import ViewSettings
from data.stream.views import affine, draw_views
from models.count.cost import ViewSize, Workload, map_sides
from models.count.losses import (
    LossSizes,
    Rows,
    aggregation,
    alignment,
    context_update,
    granularity,
    losses,
)
from models.features import FUSED
from models.initialise import initialise
from models.pretraining.losses.clusters import cluster_count
from models.pretraining.losses.correspondence import match
from models.pretraining.losses.dino import Centre, DinoSpec
from models.pretraining.losses.image_text import LabelledViews, image_text
from models.pretraining.losses.multi_granularity import (
    LEVELS,
    GranularitySpec,
    ViewMaps,
    multi_granularity,
    partner_views,
)
from models.pretraining.losses.semantic_aggregation import ViewQueries, semantic_aggregation
from models.pretraining.projection_head import ProjectionHead
from models.reducer import Reducer
from models.spec import ModelSpec
from tests.unit.models.count.counter import BATCH, DENSE, SIZES, built, counted, inputs, total

CLASSES, CLUSTERS, ITERATIONS = 7, 6, 3
WORK = Workload(DENSE, SIZES, BATCH)
LOSS_SIZES = LossSizes(CLUSTERS, CLASSES, ITERATIONS)


def heads_equal(costs, loss) -> None:
    """The head loss makes the gradients of the last layer, and computes logits again, in its
    forward pass."""
    early = total((cost for cost in costs if cost.module.endswith(", logits")), "backward")
    kept = []
    assert counted(lambda: kept.append(loss())) == total(costs) + total(costs, "recomputed") + early
    assert counted(kept[0].backward) == total(costs, "backward") - early


class Overlap:
    """Views of some samples: affines, and the rows that each feature's map makes of them."""

    def __init__(self, spec: ModelSpec, sizes: dict[str, ViewSize]):
        settings = ViewSettings(
            global_views=sizes["global"].views, local_views=sizes["local"].views
        )
        drawn = [draw_views(generator(0, sample), 64, settings) for sample in range(BATCH)]
        self.affine = {
            size: torch.stack(
                [
                    torch.stack([torch.from_numpy(affine(view)) for view in views[size]])
                    for views in drawn
                ]
            )
            for size in sizes
        }
        self.rows = {}
        frames = {name: m.frames for name, m in spec.modalities.items()} | {FUSED: 1}
        for size, (views, pixels) in sizes.items():
            partners = partner_views(views, sizes["global"].views, same=size == "global")
            for feature, side in map_sides(spec, pixels).items():
                places = match(self.affine[size], self.affine["global"], (side, side))
                inside = places.inside & partners[:, :, None, None]  # B Vs Vt h w
                objects = cluster_count(CLUSTERS, side**2)
                found = Rows(
                    *(
                        frames[feature] * int(n)
                        for n in (
                            inside.any(2).sum(),
                            inside.sum(),
                            objects * (inside.flatten(3).sum(-1) >= objects).sum(),
                        )
                    )
                )
                self.rows.setdefault(feature, {})[size] = found


def heads(width: int, spec: ModelSpec) -> ProjectionHead:
    head = ProjectionHead(width, spec.head)
    initialise(head, 0)
    return head


@pytest.mark.parametrize(
    "feature,centred", [("hr", False), ("ms", False), (FUSED, False), (FUSED, True)]
)
def test_multi_granularity(feature, centred):
    spec, sizes, overlap = DENSE, SIZES, Overlap(DENSE, SIZES)
    width = spec.fused_width if feature == FUSED else spec.widths[-1]
    frames = 1 if feature == FUSED else spec.modalities[feature].frames

    def maps(size: str, trained: bool) -> ViewMaps:
        side = map_sides(spec, sizes[size].pixels)[feature]
        shape = (BATCH, sizes[size].views, frames, side, side)
        return ViewMaps(
            torch.randn(*shape, width, requires_grad=trained),
            torch.ones(shape, dtype=torch.bool),
            overlap.affine[size],
        )

    student, teacher = (
        {level: heads(width, spec) for level in ("image", "dense")} for _ in range(2)
    )
    levels = {level: Centre(spec.head.prototypes) for level in LEVELS} if centred else None
    assert overlap.rows[feature]["global"].objects > 0 < overlap.rows[feature]["local"].pixel
    loss_sizes = LOSS_SIZES._replace(iterations=0) if centred else LOSS_SIZES
    costs = granularity(WORK, feature, overlap.rows[feature], loss_sizes)
    heads_equal(
        costs,
        lambda: (
            multi_granularity(
                {size: maps(size, True) for size in sizes},
                maps("global", False),
                student_heads=student,
                teacher_heads=teacher,
                spec=GranularitySpec(DinoSpec(iterations=ITERATIONS), CLUSTERS),
                reducer=Reducer(),
                centres=levels,
            ).total
        ),
    )


def test_semantic_aggregation():
    spec, sizes = DENSE, SIZES
    student, teacher = (
        {
            size: ViewQueries(
                torch.randn(BATCH, views, spec.queries, spec.fusion.width, requires_grad=trained),
                torch.ones(BATCH, views, dtype=torch.bool),
            )
            for size, (views, _) in sizes.items()
        }
        for trained in (True, False)
    )
    mine, theirs = heads(spec.fusion.width, spec), heads(spec.fusion.width, spec)
    heads_equal(
        aggregation(WORK, ITERATIONS),
        lambda: (
            semantic_aggregation(
                student,
                teacher,
                student_head=mine,
                teacher_head=theirs,
                spec=DinoSpec(iterations=ITERATIONS),
                reducer=Reducer(),
            ).loss
        ),
    )


def test_image_text_and_its_projection():
    spec, sizes = DENSE, SIZES
    projection, text = (
        torch.nn.Linear(spec.fused_width, spec.text_width),
        torch.randn(CLASSES, spec.text_width),
    )
    kept = []

    def loss():
        views = {}
        for size, (count, pixels) in sizes.items():
            side = map_sides(spec, pixels)[FUSED]
            fused = torch.randn(BATCH, count, side, side, spec.fused_width, requires_grad=True)
            views[size] = LabelledViews(
                projection(fused),
                torch.ones(fused.shape[:-1], dtype=torch.bool),
                torch.zeros(BATCH, count, 8, 8, dtype=torch.int64),
            )
        kept.append(image_text(views, text, temperature=0.07, reducer=Reducer()))

    measured = counted(loss)
    costs = alignment(WORK, CLASSES)
    assert measured == total(costs)
    assert counted(kept[0].backward) == total(costs, "backward")


def test_update_of_the_geo_context():
    model = built(DENSE)
    outputs = model(inputs(DENSE, SIZES))
    measured = counted(lambda: model.update_context(outputs, Reducer()))
    assert measured == total(context_update(WORK)) > 0
    assert context_update(Workload(DENSE.variant(context=None), SIZES, BATCH)) == []


def test_losses_are_all_of_them():
    rows = Overlap(DENSE, SIZES).rows
    parts = [granularity(WORK, feature, found, LOSS_SIZES) for feature, found in rows.items()]
    parts += [
        aggregation(WORK, ITERATIONS),
        alignment(WORK, CLASSES),
        context_update(WORK),
    ]
    assert losses(WORK, rows, LOSS_SIZES) == [cost for part in parts for cost in part]
