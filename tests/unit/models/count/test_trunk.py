"""The analytic FLOP counts of the model against torch's counter, which sees every product that is
really computed."""

import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data.stream.settings import ViewSettings
from engine.cost.count import view_sizes
from models.count.cost import MLP_RATIO, ViewSize, Workload
from models.count.trunk import pretraining, trunk
from models.errors import ModelError
from models.initialise import initialise
from models.pretraining.model import Pretraining
from models.recompute import BLOCKS
from models.skysense import SkySense
from models.spec import FusionSpec, ModelSpec, MoESpec
from tests.unit.models.count.counter import (
    BATCH,
    DENSE,
    HR,
    MS,
    SAR,
    SIZES,
    built,
    counted,
    inputs,
    total,
)

PAPER_SIZES = view_sizes(ViewSettings())
EXPERTS = MoESpec(blocks=(1, 4, 5, 7), experts=3, capacity_factor=0.0)
CASES = {
    "dense": (DENSE, SIZES),
    "experts": (DENSE.variant(moe=EXPERTS), SIZES),
    "odd grids": (
        DENSE,
        {
            "global": ViewSize(1, {"hr": 40, "ms": 20, "sar": 12}),
            "local": ViewSize(2, {"hr": 24, "ms": 12, "sar": 20}),
        },
    ),  # hr: 10 and 6, windows of 4 padded
    "one token": (
        DENSE,
        {
            "global": ViewSize(2, {"hr": 16, "ms": 8, "sar": 8}),
            "local": ViewSize(1, {"hr": 8, "ms": 4, "sar": 4}),
        },
    ),
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
    "coarse fusion, one layer": (DENSE.variant(fusion=FusionSpec(16, 1, 2, 1)), SIZES),
}


def scalar(outputs) -> torch.Tensor:
    """Depends on everything that the model puts out."""
    maps = [found for size in outputs.features.values() for found in size.maps.values()]
    return sum(x.float().sum() for x in [*maps, *outputs.queries.values()])


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_equal_torchs_counter(case):
    spec, sizes = CASES[case]
    model, views, costs = (
        built(spec),
        inputs(spec, sizes),
        pretraining(Workload(spec, sizes, BATCH)),
    )
    kept = []
    assert counted(lambda: kept.append(model(views))) == total(costs)
    assert counted(scalar(kept[0]).backward) == total(costs, "backward")


@pytest.mark.parametrize("case", ["dense", "experts"])
def test_activation_checkpointing_recomputes_what_is_said(case):
    spec, sizes = CASES[case]
    costs = pretraining(Workload(spec, sizes, BATCH))
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
    for cost in pretraining(Workload(spec, sizes, BATCH)):
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
        cost
        for cost in trunk(Workload(alone, {size: SIZES[size]}, BATCH))
        if cost.modality == "shared"
    )
    fusion = ("grid resize", "fusion projections")
    mine = [
        cost
        for cost in trunk(Workload(DENSE, SIZES, BATCH))
        if (cost.modality, cost.view) == (modality, size) and cost.module not in fusion
    ]
    validity = total(
        cost
        for cost in trunk(Workload(alone, {size: SIZES[size]}, BATCH))
        if cost.module == "grid resize"
    )
    assert measured == total(mine) + shared + validity


def test_a_model_without_fusion():
    spec = DENSE.variant(fusion=None, context=None)
    model = SkySense(spec)
    initialise(model, 0)
    assert counted(lambda: model(inputs(spec, SIZES))) == total(trunk(Workload(spec, SIZES, BATCH)))


def test_the_full_size_on_the_meta_device():
    """The numbers of docs/decisions.md are what torch's counter says."""
    spec = ModelSpec(moe=None)
    with torch.device("meta"):
        model = Pretraining(spec).eval().requires_grad_(False)
        for size, giga in (("global", 5813), ("local", 2604)):
            sizes = {size: PAPER_SIZES[size]}
            views = inputs(spec, sizes, 1)
            measured = counted(lambda views=views: model(views))
            assert measured == total(pretraining(Workload(spec, sizes)))
            assert round(measured / 1e9) == giga


def test_experts_cost_their_gate_more_than_the_dense_layer():
    dense, experts = (
        pretraining(Workload(ModelSpec(moe=moe), PAPER_SIZES)) for moe in (None, MoESpec())
    )
    gates = total(cost for cost in experts if cost.module.endswith("gate"))
    assert total(experts) == total(dense) + gates and gates > 0


def test_shared_pieces_do_not_grow_with_the_batch():
    one, four = (trunk(Workload(DENSE, SIZES, batch)) for batch in (1, 4))
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
        ModelError, match=r"whole patches of 4 pixels, found 6 pixels of ms in 'global'"
    ):
        trunk(Workload(ModelSpec(), {"global": ViewSize(2, {"hr": 64, "ms": 6, "sar": 8})}))


def test_fusion_and_decoder_have_the_ratio_that_is_counted():
    model = built(DENSE)
    for module in (model.trunk.fusion.layers[0], model.decoder):
        assert module.fc1.out_features == MLP_RATIO * module.fc1.in_features
