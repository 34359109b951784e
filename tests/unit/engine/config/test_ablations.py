"""Every ablation of the supplement is a file of settings; what each changes is shown on a model as
deep as the paper's.

The files hold full-size settings. The models here have the paper's 24 blocks, frames, prompts and
experts but are thin.
"""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from data.shards.dataset import ShardDataset
from data.stream.batches import open_stream
from engine.config.load import load
from models.initialise import initialise
from models.packing import Group, Layout
from models.pretrained.adapt import adapt
from models.pretrained.choice import Choice, Sensor
from models.pretraining.model import Pretraining
from models.spec import ContextSpec, FusionSpec, HeadSpec, ModelSpec
from models.variants import named
from tests.commands import TINY
from tests.paths import ROOT
from tests.unit.engine.training.test_absent import outcome
from tests.unit.objectives import build_objective

FOLDER = ROOT / "ds_configs" / "ablations"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
VARIANT = {
    "table_11_experts_4": "experts_4",
    "table_11_experts_16": "experts_16",
    "table_12_moe_last_2": "moe_last_2",
    "table_12_moe_last_4": "moe_last_4",
    "table_12_moe_last_8": "moe_last_8",
    "table_13_moe_spread": "moe_spread",
    "table_14_without_moe": "dense",
    "table_14_one_expert": "dense",
    "table_15_queries_4": "queries_4",
    "table_15_queries_8": "queries_8",
    "table_15_queries_24": "queries_24",
    "table_07_without_image_text": "skysense_v2",
    "table_16_random_initialisation": "skysense_v2",
}
# HR and the first Sentinel group: what stage 4 of the paper's model sees of two small images
LAYOUT = Layout((Group("hr", "global", 2, 16, 16), Group("ms", "global", 3, 2, 2)))
PRESENT = [torch.ones(group.images, dtype=torch.bool) for group in LAYOUT.groups]


def settings_of(name: str):
    """The settings of an ablation's file."""
    return load(FOLDER / f"{name}.json", world_size=128).settings


def spec_of(name: str | None) -> ModelSpec:
    """The model of an ablation's file; None is the paper's."""
    if name is None:
        return ModelSpec.skysense_v2()
    return settings_of(name).model


def thin(spec: ModelSpec) -> ModelSpec:
    """The same model with few channels, so that it runs here."""
    moe = None
    if spec.moe is not None:
        moe = replace(spec.moe, capacity_factor=0.0)  # nothing dropped
    return spec.variant(
        widths=(16, 32, 64, 128),
        head_dim=16,
        window=4,
        moe=moe,
        fusion=FusionSpec(width=32, layers=2, heads=2),
        context=ContextSpec(regions=2, prototypes=4, width=16),
        head=HeadSpec(hidden=16, prototypes=16),
        text_width=16,
    )


def model(spec: ModelSpec) -> Pretraining:
    """A thin model with the first values of seed 0, its Swin branches open (they start at zero)."""
    made = Pretraining(thin(spec))
    initialise(made, 0)
    with torch.no_grad():
        for block in [*made.trunk.backbone.stages[0].blocks, *made.trunk.backbone.stages[1].blocks]:
            for norm in (block.norm1, block.norm2):
                norm.weight.fill_(0.5)
    return made.eval()


def with_weights_of(
    trained: Pretraining, spec: ModelSpec, expert: int | None = None
) -> Pretraining:
    """Another model with the weights of ``trained``, as ``init.path`` gives them; nothing may be
    missing."""
    other = model(spec)
    found = adapt(
        trained.state_dict(),
        {name: x.shape for name, x in other.state_dict().items()},
        source=trained.spec,
        target=other.spec,
        sensors={name: Sensor(name) for name in spec.modalities},
        bands={},
        expert=expert,
    )
    assert not found.missing
    other.load_state_dict(found.state)
    return other


@torch.no_grad()
def run_backbone(pretraining: Pretraining):
    """Stages and routings of the same random tokens."""
    tokens = torch.randn(LAYOUT.tokens, 16, generator=torch.Generator().manual_seed(1))
    return pretraining.trunk.backbone(tokens, LAYOUT, PRESENT)


PAPER = model(ModelSpec.skysense_v2())


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_run_of_its_own_that_changes_the_paper_preset(name):
    settings = settings_of(name)
    paper = load(ROOT / "ds_configs/paper_128gpu.json", world_size=128).settings
    assert settings.run_dir == f"runs/ablations/{name}"
    same = replace(settings, run_dir=paper.run_dir, description=paper.description)
    # The paper preset itself starts at random.
    assert (same == paper) == (name == "table_16_random_initialisation")
    if name in VARIANT:
        assert settings.model == named(VARIANT[name])


def test_no_table_of_the_supplement_is_left_out():
    assert {int(name.split("_")[1]) for name in NAMES} == {7, 8, 10, 11, 12, 13, 14, 15, 16}
    page = (ROOT / "docs" / "ablations.md").read_text()
    assert all(f"`{name}`" in page for name in NAMES)


def test_table_7_without_image_text_alignment(shards):
    off = settings_of("table_07_without_image_text").loss.ita
    results = []
    for weight in (1.0, off):
        settings = load(
            TINY,
            [f"skysense.data.shards={shards}", "skysense.ep_size=1", f"skysense.loss.ita={weight}"],
            world_size=1,
        ).settings
        dataset = ShardDataset.open(shards)
        stream = open_stream(dataset, settings.data, seed=0, batch_size=8, steps=range(20))
        batch = next(batch for batch in stream if (batch.views["global"].labels >= 0).any())
        results.append(outcome(build_objective(settings, dataset), batch))
    terms, gradients, _ = results[0]
    terms_off, gradients_off, _ = results[1]
    assert terms["ita"] > 0 and torch.equal(terms["ita"], terms_off["ita"])  # still measured
    assert_close(terms_off["total"], terms["total"] - terms["ita"])
    assert (
        gradients["text_projection.weight"].any()
        and not gradients_off["text_projection.weight"].any()
    )


@pytest.mark.parametrize(
    "name, sides",
    [
        (None, [16, 8, 4, 2]),
        ("table_08_merge_stages_2_3", [16, 8, 4, 4]),
        ("table_08_merge_stage_2", [16, 8, 8, 8]),
        ("table_08_merge_none", [16, 16, 16, 16]),
    ],
)
def test_table_8_feature_resolution(name, sides):
    """From 1/32 of the pixels, as in training, to 1/4, as of the tokens, with the same weights."""
    spec = spec_of(name)
    other = with_weights_of(PAPER, spec)
    stages, _ = run_backbone(other)
    assert [layout.groups[0].height for _, layout in stages] == sides
    assert [layout.groups[1].height for _, layout in stages] == [2, 2, 2, 2]
    off = next((i for i in range(3) if sides[i + 1] == sides[i]), 3)
    for (x, layout), (y, _) in zip(stages[: off + 1], run_backbone(PAPER)[0][: off + 1]):
        assert_close(layout.split(x)[0], layout.split(y)[0])  # up to the first merge that is off
    loaded = Choice(merge={"hr": spec.modalities["hr"].merge}).specification(
        ModelSpec.skysense_v2()
    )
    assert loaded == spec  # the same choice when a trained model is loaded


def prefixes(routings) -> set[int]:
    """Numbers of prompt tokens in front of the images that the MoE layers saw."""
    numbers = set()
    for routing in routings:
        numbers |= {group.prefix for group in routing.layout.groups}
    return numbers


def blocks_of(pretraining: Pretraining) -> list:
    """All blocks of the backbone, first to last."""
    blocks = []
    for stage in pretraining.trunk.backbone.stages:
        blocks += stage.blocks
    return blocks


def test_table_10_without_prompts():
    spec = settings_of("table_10_without_prompts").model
    assert Choice(prompts=False).specification(ModelSpec.skysense_v2()) == spec
    plain, plain_routings = run_backbone(with_weights_of(PAPER, spec))
    prompted, routings = run_backbone(PAPER)
    assert prefixes(plain_routings) == {0}
    assert prefixes(routings) == {4, 0}  # dropped in the last blocks
    for i, (a, b) in enumerate(zip(plain, prompted)):
        assert a[0].shape == b[0].shape and torch.equal(a[0], b[0]) == (i < 2)


@pytest.mark.parametrize(
    "name, experts", [(None, 8), ("table_11_experts_4", 4), ("table_11_experts_16", 16)]
)
def test_table_11_number_of_experts(name, experts):
    made = model(spec_of(name))
    _, routings = run_backbone(made)
    assert len(routings) == 6
    chosen = torch.cat([routing.expert for routing in routings])
    assert chosen.unique().tolist() == list(range(experts))  # each gets tokens somewhere
    stage = made.trunk.backbone.stages[3].blocks[0].ffn.layer.deepspeed_moe
    assert len(stage.experts.deepspeed_experts) == len(stage.gate.wg.weight) == experts


@pytest.mark.parametrize(
    "name, blocks",
    [
        (None, range(18, 24)),
        ("table_12_moe_last_2", range(22, 24)),
        ("table_12_moe_last_4", range(20, 24)),
        ("table_12_moe_last_8", range(16, 24)),
        ("table_13_moe_spread", range(3, 24, 4)),
        ("table_14_without_moe", []),
    ],
)
def test_tables_12_to_14_where_the_experts_are(name, blocks):
    made = model(spec_of(name))
    _, routings = run_backbone(made)
    assert [i for i, block in enumerate(blocks_of(made)) if hasattr(block.ffn, "layer")] == list(
        blocks
    )
    assert len(routings) == len(blocks)


def test_table_14_fixed_gate():
    made = model(settings_of("table_14_fixed_gate").model).train()
    tokens = torch.randn(LAYOUT.tokens, 16, generator=torch.Generator().manual_seed(1))
    stages, routings = made.trunk.backbone(tokens, LAYOUT, PRESENT)
    (stages[-1][0].square().sum() + sum(routing.balance for routing in routings)).backward()
    gradients = {name: p.grad for name, p in made.trunk.backbone.named_parameters()}
    assert all(
        (grad is None) == name.endswith("gate.wg.weight")
        for name, grad in gradients.items()
        if "ffn" in name
    )
    assert_close(run_backbone(made.eval())[0][-1][0], run_backbone(PAPER)[0][-1][0])


def test_table_14_one_expert():
    settings = settings_of("table_14_one_expert")
    other = with_weights_of(PAPER, settings.model, settings.init.expert)
    assert not run_backbone(other)[1]
    kept = []
    for block, plain in zip(blocks_of(PAPER), blocks_of(other), strict=True):
        if hasattr(block.ffn, "layer"):
            experts = block.ffn.layer.deepspeed_moe.experts.deepspeed_experts
            found = [
                i
                for i, expert in enumerate(experts)
                if torch.equal(expert.fc1.weight, plain.ffn.fc1.weight)
            ]
            assert len(found) == 1 and torch.equal(experts[found[0]].fc2.bias, plain.ffn.fc2.bias)
            kept += found
    assert len(kept) == 6 and len(set(kept)) > 1  # each block draws its own


@pytest.mark.parametrize(
    "name, queries",
    [(None, 16), ("table_15_queries_4", 4), ("table_15_queries_8", 8), ("table_15_queries_24", 24)],
)
def test_table_15_number_of_queries(name, queries):
    made = model(spec_of(name))
    cells = torch.randn(3, 5, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        answers = made.decoder(cells, torch.ones(3, 5, dtype=torch.bool))  # B m D
    assert answers.shape == (3, queries, 32)
    distance = torch.cdist(answers[0], answers[0]) + torch.eye(queries)
    assert distance.min() > 1e-4  # every query has an answer of its own


def test_table_16_random_initialisation():
    """Without ``init.path`` the first weights follow from the seed; with it, from the trained
    model."""
    assert settings_of("table_16_random_initialisation").init.path is None
    trained_from = {name for name in NAMES if settings_of(name).init.path == "runs/paper"}
    assert trained_from == {name for name in NAMES if name.startswith(("table_08", "table_10"))} | {
        "table_14_fixed_gate",
        "table_14_one_expert",
    }
    assert load(ROOT / "ds_configs/paper_128gpu.json").settings.run_dir == "runs/paper"
