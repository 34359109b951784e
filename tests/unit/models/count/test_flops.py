"""The analytic FLOP counts against torch's counter, which sees every product that is really
computed."""

import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data.seeded import generator
from data.stream.settings import ViewSettings
from data.stream.views import affine, draw_views
from models.count.flops import (
    MLP_RATIO,
    Rows,
    ViewSize,
    aggregation,
    alignment,
    context_update,
    granularity,
    losses,
    map_sides,
    pretraining,
    trunk,
)
from models.errors import ModelError
from models.features import FUSED, Views
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
from models.pretraining.losses.semantic_aggregation import semantic_aggregation
from models.pretraining.model import Pretraining
from models.pretraining.projection_head import ProjectionHead
from models.recompute import BLOCKS
from models.reducer import Reducer
from models.skysense import SkySense
from models.spec import ContextSpec, FusionSpec, HeadSpec, ModalitySpec, ModelSpec, MoESpec

BATCH = 2
SIZES = {"global": ViewSize(2, 8), "local": ViewSize(3, 4)}
HR = ModalitySpec(
    bands=3, frames=1, pixels_per_cell=8, merge=(True, True, True), position_grids=(3, 2)
)
MS = ModalitySpec(
    bands=5, frames=3, pixels_per_cell=4, merge=(False, False, False), position_grids=(4, 4)
)
SAR = ModalitySpec(
    bands=2, frames=2, pixels_per_cell=4, merge=(False, False, False), position_grids=(4, 4)
)
DENSE = ModelSpec(
    modalities={"hr": HR, "ms": MS, "sar": SAR},
    widths=(8, 16, 32, 64),
    depths=(2, 1, 3, 2),
    head_dim=8,
    mlp_ratio=3,
    window=4,
    prompts=(0, 0, 2, 3),
    moe=None,
    fusion=FusionSpec(width=16, layers=3, heads=2, cell_metres=20.0),
    context=ContextSpec(regions=3, prototypes=5, width=6),
    head=HeadSpec(3, 20, 10, 30),
    queries=4,
    text_width=12,
)
EXPERTS = MoESpec(blocks=(1, 4, 5, 7), experts=3, capacity_factor=0.0)
CASES = {
    "dense": (DENSE, SIZES),
    "experts": (DENSE.variant(moe=EXPERTS), SIZES),
    "odd grids": (
        DENSE,
        {"global": ViewSize(1, 5), "local": ViewSize(2, 3)},
    ),  # hr: 10 and 6, windows of 4 padded
    "one cell": (DENSE, {"global": ViewSize(2, 2), "local": ViewSize(1, 1)}),
    "merges off": (
        DENSE.variant(modalities={"hr": replace(HR, merge=(True, False, False)), "ms": MS}),
        SIZES,
    ),
    "merges on": (
        DENSE.variant(modalities={"hr": HR, "ms": replace(MS, merge=(True, True, False))}),
        SIZES,
    ),
    "one modality": (DENSE.variant(modalities={"sar": SAR}), SIZES),
    "no context, no prompts": (DENSE.variant(context=None, prompts=(0, 0, 0, 0)), SIZES),
    "an empty stage": (DENSE.variant(depths=(3, 0, 1, 1), window=8), SIZES),
    "coarse fusion, one layer": (DENSE.variant(fusion=FusionSpec(16, 1, 2, 40.0)), SIZES),
}


def inputs(spec: ModelSpec, sizes: dict[str, ViewSize], batch: int = BATCH) -> dict[str, Views]:
    """Views with every modality and frame present."""
    views = {}
    for size, (count, cells) in sizes.items():
        shapes = {
            name: (batch, count, m.frames, m.bands, *(cells * m.pixels_per_cell,) * 2)
            for name, m in spec.modalities.items()
        }
        views[size] = Views(
            images={name: torch.randn(shape) for name, shape in shapes.items()},
            valid={
                name: torch.ones(*shape[:3], cells, cells, dtype=torch.bool)
                for name, shape in shapes.items()
            },
            days={
                name: torch.zeros(batch, shape[2], dtype=torch.int64)
                for name, shape in shapes.items()
            },
            region=torch.zeros(batch, dtype=torch.int64),
        )
    return views


def counted(function) -> int:
    """FLOPs that torch's counter sees. Fused attention of the CPU is unknown to it: plain products
    instead."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops()


def total(costs, what: str = "flops") -> float:
    return sum(getattr(cost, what) for cost in costs)


def built(spec: ModelSpec, **options) -> Pretraining:
    model = Pretraining(spec, **options)
    initialise(model, 0)
    return model


def scalar(outputs) -> torch.Tensor:
    """Depends on everything that the model puts out."""
    maps = [found for size in outputs.features.values() for found in size.maps.values()]
    return sum(x.float().sum() for x in [*maps, *outputs.queries.values()])


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_equal_torchs_counter(case):
    spec, sizes = CASES[case]
    model, views, costs = built(spec), inputs(spec, sizes), pretraining(spec, sizes, BATCH)
    kept = []
    assert counted(lambda: kept.append(model(views))) == total(costs)
    assert counted(scalar(kept[0]).backward) == total(costs, "backward")


@pytest.mark.parametrize("case", ["dense", "experts"])
def test_activation_checkpointing_recomputes_what_is_said(case):
    spec, sizes = CASES[case]
    costs = pretraining(spec, sizes, BATCH)
    model, kept = built(spec, recompute=BLOCKS), []
    assert counted(lambda: kept.append(scalar(model(inputs(spec, sizes))))) == total(costs)
    assert counted(kept[0].backward) == total(costs, "backward") + total(costs, "recomputed")


@pytest.mark.parametrize("case", CASES)
def test_every_module_alone(case):
    spec, sizes = CASES[case]
    model, views = built(spec).requires_grad_(False), inputs(spec, sizes)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(views)
    measured = Counter()
    for path, found in counter.get_flop_counts().items():
        measured[path.removeprefix("Pretraining.")] = sum(found.values())
    expected = Counter()
    for cost in pretraining(spec, sizes, BATCH):
        expected[cost.module] += cost.flops

    def below(*wanted: str) -> int:
        """What the modules at these paths computed; * is one name."""
        patterns = [re.compile(path.replace(".", r"\.").replace("*", "[^.]+")) for path in wanted]
        return sum(
            flops
            for path, flops in measured.items()
            if any(pattern.fullmatch(path) for pattern in patterns)
        )

    assert below("trunk.tokenizers.*") == expected["tokenizer"]
    for stage in range(4):
        name, path = f"stage {stage + 1}", f"trunk.backbone.stages.{stage}"
        assert (
            below(f"{path}.blocks.*.attention")
            == expected[f"{name} attention"] + expected[f"{name} position bias"]
        )
        assert below(f"{path}.blocks.*.ffn") == sum(
            expected[f"{name} {what}"] for what in ("feed-forward", "gate", "experts")
        )
        assert below(f"{path}.positions") == expected[f"{name} positions"]
        assert below(f"{path}.prompts") == expected[f"{name} prompts"]
        assert below(f"trunk.backbone.merges.{stage}") == expected[f"merging {stage + 1}"]
    assert below("trunk.fusion.projections.*") == expected["fusion projections"]
    assert (
        below("trunk.fusion.layers.*.fc1", "trunk.fusion.layers.*.fc2")
        == expected["fusion feed-forward"]
    )
    assert (
        below("trunk.fusion.layers.*")
        == expected["fusion feed-forward"] + expected["fusion attention"]
    )
    assert below("trunk.context.projection") == expected["context query"]
    assert below("decoder") == expected["query decoder"]
    rest = below("trunk") - below(
        "trunk.tokenizers.*", "trunk.backbone", "trunk.fusion", "trunk.context.projection"
    )
    assert rest == expected["grid resize"] + expected["context read-out"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("modality", DENSE.modalities)
def test_every_modality_and_view_size_alone(modality, size):
    """The entries of one modality and view size are what a model of that modality computes on these
    views."""
    alone = DENSE.variant(
        modalities={modality: DENSE.modalities[modality]}, fusion=None, context=None
    )
    model = SkySense(alone)
    initialise(model, 0)
    measured = counted(lambda: model(inputs(alone, {size: SIZES[size]})))
    shared = total(
        cost for cost in trunk(alone, {size: SIZES[size]}, BATCH) if cost.modality == "shared"
    )
    fusion = ("grid resize", "fusion projections")
    mine = [
        cost
        for cost in trunk(DENSE, SIZES, BATCH)
        if (cost.modality, cost.view) == (modality, size) and cost.module not in fusion
    ]
    validity = total(
        cost for cost in trunk(alone, {size: SIZES[size]}, BATCH) if cost.module == "grid resize"
    )
    assert measured == total(mine) + shared + validity


def test_a_model_without_fusion():
    spec = DENSE.variant(fusion=None, context=None)
    model = SkySense(spec)
    initialise(model, 0)
    assert counted(lambda: model(inputs(spec, SIZES))) == total(trunk(spec, SIZES, BATCH))


def test_the_full_size_on_the_meta_device():
    """The numbers of docs/decisions.md are what torch's counter says."""
    spec = ModelSpec(moe=None)
    with torch.device("meta"):
        model = Pretraining(spec).eval().requires_grad_(False)
        for sizes, giga in (({"global": ViewSize(2, 16)}, 6530), ({"local": ViewSize(6, 4)}, 1914)):
            measured = counted(lambda: model(inputs(spec, sizes, 1)))
            assert measured == total(pretraining(spec, sizes)) and round(measured / 1e9) == giga


def test_experts_cost_their_gate_more_than_the_dense_layer():
    sizes = {"global": ViewSize(2, 16), "local": ViewSize(6, 4)}
    dense, experts = (pretraining(ModelSpec(moe=moe), sizes) for moe in (None, MoESpec()))
    gates = total(cost for cost in experts if cost.module.endswith("gate"))
    assert total(experts) == total(dense) + gates and gates > 0


def test_shared_pieces_do_not_grow_with_the_batch():
    one, four = (trunk(DENSE, SIZES, batch) for batch in (1, 4))
    shared, own = (
        [
            total(cost for cost in costs if (cost.modality == "shared") == flag)
            for costs in (one, four)
        ]
        for flag in (True, False)
    )
    assert shared[0] == shared[1] > 0 and own[1] == 4 * own[0]


def test_views_of_broken_patches_are_refused():
    with pytest.raises(
        ModelError, match=r"whole patches of 4 pixels, found 6 cells of 6 pixels of ms in 'global'"
    ):
        trunk(ModelSpec(), {"global": ViewSize(2, 6)})


def test_fusion_and_decoder_have_the_ratio_that_is_counted():
    model = built(DENSE)
    for module in (model.trunk.fusion.layers[0], model.decoder):
        assert module.fc1.out_features == MLP_RATIO * module.fc1.in_features


# ------------------------------------------------------------------------------------------------ heads and losses

CLASSES, CLUSTERS, ITERATIONS = 7, 6, 3


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
        for size, (views, cells) in sizes.items():
            partners = partner_views(views, sizes["global"].views, same=size == "global")
            for feature, side in map_sides(spec, cells).items():
                _, inside = match(self.affine[size], self.affine["global"], (side, side))
                inside = inside & partners[:, :, None, None]  # B Vs Vt h w
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
        side = map_sides(spec, sizes[size].cells)[feature]
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
    costs = granularity(
        spec, sizes, feature, overlap.rows[feature], CLUSTERS, 0 if centred else ITERATIONS, BATCH
    )
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
            size: torch.randn(BATCH, views, spec.queries, spec.fusion.width, requires_grad=trained)
            for size, (views, _) in sizes.items()
        }
        for trained in (True, False)
    )
    valid = {size: torch.ones(BATCH, views, dtype=torch.bool) for size, (views, _) in sizes.items()}
    mine, theirs = heads(spec.fusion.width, spec), heads(spec.fusion.width, spec)
    heads_equal(
        aggregation(spec, sizes, ITERATIONS, BATCH),
        lambda: (
            semantic_aggregation(
                student,
                teacher,
                valid=valid,
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
        for size, (count, cells) in sizes.items():
            side = map_sides(spec, cells)[FUSED]
            fused = torch.randn(BATCH, count, side, side, spec.fused_width, requires_grad=True)
            views[size] = LabelledViews(
                projection(fused),
                torch.ones(fused.shape[:-1], dtype=torch.bool),
                torch.zeros(BATCH, count, 8, 8, dtype=torch.int64),
            )
        kept.append(image_text(views, text, temperature=0.07, reducer=Reducer()))

    measured = counted(loss)
    costs = alignment(spec, sizes, CLASSES, BATCH)
    assert measured == total(costs)
    assert counted(kept[0].backward) == total(costs, "backward")


def test_update_of_the_geo_context():
    model = built(DENSE)
    outputs = model(inputs(DENSE, SIZES))
    measured = counted(lambda: model.update_context(outputs, Reducer()))
    assert measured == total(context_update(DENSE, SIZES, BATCH)) > 0
    assert context_update(DENSE.variant(context=None), SIZES, BATCH) == []


def test_losses_are_all_of_them():
    rows = Overlap(DENSE, SIZES).rows
    parts = [
        granularity(DENSE, SIZES, feature, found, CLUSTERS, ITERATIONS, BATCH)
        for feature, found in rows.items()
    ]
    parts += [
        aggregation(DENSE, SIZES, ITERATIONS, BATCH),
        alignment(DENSE, SIZES, CLASSES, BATCH),
        context_update(DENSE, SIZES, BATCH),
    ]
    assert losses(DENSE, SIZES, rows, CLUSTERS, CLASSES, ITERATIONS, BATCH) == [
        cost for part in parts for cost in part
    ]
