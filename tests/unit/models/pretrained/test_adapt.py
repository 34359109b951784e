"""Trained weights for another specification, compared with the trained model itself."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from models.features import Views
from models.initialise import initialise
from models.pretrained.adapt import adapt, adapt_bands, kept_experts
from models.pretrained.choice import Choice, Sensor
from models.skysense import SkySense
from models.spec import ContextSpec, FusionSpec, HeadSpec, ModalitySpec, ModelSpec, MoESpec

BANDS = {"hr": ("R", "G", "B"), "ms": tuple("abcdefghij"), "sar": ("VV", "VH")}
SPEC = ModelSpec(
    modalities={
        "hr": ModalitySpec(3, 1, (True,) * 3, (4, 2)),
        "ms": ModalitySpec(10, 3, (False,) * 3, (2, 2)),
        "sar": ModalitySpec(2, 2, (False,) * 3, (2, 2)),
    },
    widths=(16, 32, 64, 128),
    depths=(2, 2, 2, 2),
    head_dim=16,
    window=4,
    prompts=(0, 0, 2, 3),
    moe=MoESpec(blocks=(3, 5, 6), experts=4, capacity_factor=0.0),
    fusion=FusionSpec(width=32, layers=1, heads=2, cells_per_token=2),
    context=ContextSpec(regions=3, prototypes=4, width=8),
    head=HeadSpec(prototypes=16),
    queries=2,
    text_width=8,
)


def trained(spec: ModelSpec = SPEC, seed: int = 0) -> SkySense:
    """A model with weights that are no first values: every one its own noise."""
    model = SkySense(spec).double()
    initialise(model, seed)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.1)
    return model.eval()


MODEL = trained()


def chosen(choice: Choice, model: SkySense = MODEL) -> tuple[SkySense, list[str]]:
    """The model of a choice and its report; nothing may be missing."""
    spec = choice.specification(model.spec)
    other = SkySense(spec).double()
    found = adapt(
        model.state_dict(),
        {name: x.shape for name, x in other.state_dict().items()},
        source=model.spec,
        target=spec,
        sensors=choice.sensors(model.spec),
        bands=BANDS,
        expert=choice.expert,
        seed=choice.seed,
    )
    assert not found.missing
    other.load_state_dict(found.state)
    return other.eval(), found.report()


PIXELS = {"hr": 32, "ms": 1, "sar": 1}  # along a cell


def views(
    names=("hr", "ms", "sar"), cells: int = 4, spec: ModelSpec = SPEC, seed: int = 1
) -> dict[str, Views]:
    """Random images of two samples, one view each."""
    source = torch.Generator().manual_seed(seed)
    shapes = {
        name: (
            2,
            1,
            spec.modalities[name].frames,
            spec.modalities[name].bands,
            cells * PIXELS[name],
            cells * PIXELS[name],
        )
        for name in names
    }
    images = {
        name: torch.randn(shape, generator=source, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return {
        "x": Views(
            images,
            {
                name: torch.ones(*shape[:3], cells, cells, dtype=torch.bool)
                for name, shape in shapes.items()
            },
            {name: torch.full(shape[:3], 100) for name, shape in shapes.items()},
            torch.tensor([0, 2]),
        )
    }


def test_a_part_of_the_modalities_sees_what_the_whole_sees():
    inputs = views(("ms",))
    part, report = chosen(Choice(modalities=("ms",)))
    found, whole = part(inputs)[0]["x"], MODEL(inputs)[0]["x"]
    assert set(part.spec.modalities) == {"ms"} and len(part.tokenizers) == 1
    for name in ("ms", "fused"):
        assert_close(found.maps[name], whole.maps[name], rtol=1e-12, atol=1e-12)
    assert any("left out: tokenizers.hr (2 tensors)" in line for line in report)


def test_without_fusion_the_maps_stay():
    inputs = views()
    backbone, _ = chosen(Choice(fusion=False))
    found = backbone(inputs)[0]["x"]
    assert backbone.fusion is None and backbone.context is None and "fused" not in found.maps
    for name in inputs["x"].images:
        assert_close(found.maps[name], MODEL(inputs)[0]["x"].maps[name], rtol=1e-12, atol=1e-12)
    without, _ = chosen(Choice(context=False))
    assert_close(
        without(inputs)[0]["x"].maps["fused"], MODEL(inputs)[0]["x"].maps["fused"][..., :32]
    )


def test_a_band_of_the_same_name_keeps_its_kernel_and_a_new_one_starts_as_the_mean():
    weight = MODEL.tokenizers["hr"].projection.weight
    kernels = weight.view(16, 3, 16)
    turned = adapt_bands(weight, BANDS["hr"], ("NIR", "R", "G")).view(16, 3, 16)
    assert_close(turned[:, 0], (kernels[:, 0] + kernels[:, 1] + kernels[:, 2]) / 3)
    assert torch.equal(turned[:, 1:], kernels[:, :2])
    assert torch.equal(adapt_bands(weight, BANDS["hr"], BANDS["hr"]), weight)


@pytest.mark.parametrize(
    "bands, order", [(("R", "G", "B", "NIR"), [0, 1, 2]), (("NIR", "B", "x", "G", "R"), [4, 3, 1])]
)
def test_an_additional_band_at_its_mean_changes_nothing(bands, order):
    """Bands in any order and number: with zeros in the unknown ones the maps are those of the
    trained bands."""
    other, report = chosen(Choice(modalities={"hr": Sensor("hr", bands)}))
    inputs = views(("hr",))
    rgb = inputs["x"].images["hr"]  # B V T 3 H W
    wide = rgb.new_zeros(*rgb.shape[:3], len(bands), *rgb.shape[4:])
    wide[:, :, :, order] = rgb
    found = other({"x": replace(inputs["x"], images={"hr": wide})})[0]["x"]
    assert_close(found.maps["hr"], MODEL(inputs)[0]["x"].maps["hr"], rtol=1e-12, atol=1e-12)
    assert [
        line
        for line in report
        if line.startswith(f"tokenizer hr: bands {' '.join(bands)} from R G B")
    ]


def test_another_sensor_starts_as_the_one_it_is_like():
    sensors = {"landsat": Sensor("ms", ("a", "b", "c")), "ms": Sensor("ms")}
    other, _ = chosen(Choice(modalities=sensors))
    assert other.spec.modalities["landsat"].bands == 3
    assert_close(
        other.backbone.stages[2].prompts.tokens["landsat"],
        MODEL.backbone.stages[2].prompts.tokens["ms"],
    )
    inputs = views(("ms",))
    images = inputs["x"].images["ms"].clone()
    images[:, :, :, 3:] = 0  # only the bands that both have
    inputs = {"x": replace(inputs["x"], images={"ms": images})}
    landsat = {
        "x": Views(
            {"landsat": images[:, :, :, :3]},
            {"landsat": inputs["x"].valid["ms"]},
            {"landsat": inputs["x"].days["ms"]},
            inputs["x"].region,
        )
    }
    found, whole = other(landsat)[0]["x"], MODEL(inputs)[0]["x"]
    assert_close(found.maps["landsat"], whole.maps["ms"], rtol=1e-12, atol=1e-12)
    assert_close(found.maps["fused"], whole.maps["fused"], rtol=1e-12, atol=1e-12)


def test_one_expert_is_the_model_whose_gates_all_choose_it_with_weight_one():
    for expert in (0, 3):
        dense, report = chosen(Choice(expert=expert))
        assert dense.spec.moe is None
        forced = trained()
        for name, module in forced.named_modules():
            if name.endswith(
                "deepspeed_moe"
            ):  # four equal experts: every token's output is gate value x that of one
                experts = module.experts.deepspeed_experts
                for other in experts:
                    other.load_state_dict(experts[expert].state_dict())
                module.gate.wg.weight.data.zero_()  # gate value 1 / 4
                for other in experts:
                    other.fc2.weight.data.mul_(4)
                    other.fc2.bias.data.mul_(4)
        inputs = views()
        assert_close(
            dense(inputs)[0]["x"].maps["fused"],
            forced(inputs)[0]["x"].maps["fused"],
            rtol=1e-10,
            atol=1e-10,
        )
        assert sum(f"expert {expert} of 4 as a plain network" in line for line in report) == 3


def test_random_experts_follow_from_the_seed_and_differ_by_block():
    spec = replace(SPEC, moe=MoESpec(blocks=tuple(range(8)), experts=64))
    draws = [kept_experts(spec, -1, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0].values())) > 4 and all(0 <= kept < 64 for kept in draws[0].values())
    assert list(kept_experts(SPEC, 2, seed=0).items()) == [
        ("backbone.stages.1.blocks.1.ffn", 2),
        ("backbone.stages.2.blocks.1.ffn", 2),
        ("backbone.stages.3.blocks.0.ffn", 2),
    ]


def test_tables_are_resized_and_other_shapes_are_missing_not_invented():
    modalities = {name: replace(m, position_grids=(6, 3)) for name, m in SPEC.modalities.items()}
    target = SPEC.variant(
        modalities=modalities, context=replace(SPEC.context, width=16), prompts=(0, 0, 2, 4)
    )
    other = SkySense(target)
    sensors = {name: Sensor(name) for name in SPEC.modalities}
    found = adapt(
        MODEL.state_dict(),
        {n: x.shape for n, x in other.state_dict().items()},
        source=SPEC,
        target=target,
        sensors=sensors,
        bands=BANDS,
    )
    assert sorted(set(found.missing)) == sorted(
        [f"backbone.stages.3.prompts.tokens.{name}" for name in modalities]
        + ["context.projection.bias", "context.projection.weight", "context.prototypes"]
    )
    assert found.state["backbone.stages.2.positions.tables.6x3"].shape == (6, 6, 64)
    assert any(
        "stages.3.positions.tables.6x3: resized from (2, 2) to (3, 3)" in note
        for note in found.notes
    )
    lines = found.report()
    assert (
        "without a trained value: context (3 tensors)" in lines
        and "left out: context (3 tensors)" in lines
    )
