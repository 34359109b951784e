"""The downstream model: shapes, parts, validity, and that it says what does not fit."""

import pytest
import torch
from torch.testing import assert_close

from models.errors import ModelError
from models.pretrained.choice import Choice
from models.pretrained.model import Pretrained
from tests.unit.models.pretrained.test_adapt import MODEL, chosen, views

DAYS = {
    "hr": torch.tensor([[100], [100]]),
    "ms": torch.full((2, 3), 100),
    "sar": torch.full((2, 2), 100),
}


def inputs(names=("hr", "ms", "sar"), cells=4):
    """Images as a user has them: the single optical image without a time axis."""
    found = {name: x[:, 0] for name, x in views(names, cells)["x"].images.items()}
    return {name: x[:, 0] if name == "hr" else x for name, x in found.items()}


def part(**choice) -> Pretrained:
    return Pretrained(chosen(Choice(**choice))[0])


@torch.no_grad()
def test_everything_at_once_equals_the_trunk():
    model = Pretrained(MODEL)
    maps = model(inputs(), DAYS, region=torch.tensor([0, 2]))
    whole = MODEL(views())[0]["x"]
    assert_close(maps.fused, whole.maps["fused"][:, 0, 0].permute(0, 3, 1, 2))
    assert_close(maps.pyramid["hr"][3], whole.maps["hr"][:, 0, 0].permute(0, 3, 1, 2))
    assert_close(maps.pyramid["ms"][3], whole.maps["ms"][:, 0].permute(0, 1, 4, 2, 3))
    assert [tuple(x.shape) for x in maps.pyramid["hr"]] == [
        (2, 16 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4)
    ]
    assert [tuple(x.shape) for x in maps.pyramid["sar"]] == [
        (2, 2, 16 * 2**i, 1, 1) for i in range(4)
    ]
    assert maps.fused.shape == (2, 40, 2, 2) and maps.valid["hr"].shape == (2, 4, 4)
    assert {name: tuple(x.shape) for name, x in maps.vectors.items()} == {
        "hr": (2, 128),
        "ms": (2, 128),
        "sar": (2, 128),
        "fused": (2, 40),
    }
    assert_close(maps.vectors["hr"], maps.pyramid["hr"][3].mean((2, 3)).float())
    assert_close(maps.vectors["ms"], maps.pyramid["ms"][3].mean((1, 3, 4)).float())


@torch.no_grad()
def test_other_sizes_and_rectangles():
    """96 x 160 pixels, whose tokens do not halve evenly: odd grids are padded on the way down."""
    model = part(modalities=("hr",), fusion=False)
    maps = model({"hr": torch.randn(1, 3, 96, 160, dtype=torch.float64)})
    assert [tuple(x.shape[2:]) for x in maps.pyramid["hr"]] == [(24, 40), (12, 20), (6, 10), (3, 5)]
    odd = model({"hr": torch.randn(1, 3, 20, 36, dtype=torch.float64)})
    assert [tuple(x.shape[2:]) for x in odd.pyramid["hr"]] == [(5, 9), (3, 5), (2, 3), (1, 2)]
    assert maps.fused is None and set(maps.vectors) == {"hr"}
    fused = part(modalities=("hr",))
    images, days = (
        {"hr": torch.randn(1, 3, 96, 160, dtype=torch.float64)},
        {"hr": torch.tensor([7])},
    )
    assert fused(images, days).fused.shape[2:] == (6, 10)  # two cells along each of 3 x 5 tokens
    assert fused(images, days, grid=(2, 2)).fused.shape[2:] == (2, 2)


@torch.no_grad()
@pytest.mark.parametrize(
    "flags, sides",
    [
        ((True, True, False), [32, 16, 8, 8]),
        ((True, False, False), [32, 16, 16, 16]),
        ((False, False, False), [32, 32, 32, 32]),
    ],
)
def test_merges_that_are_off_give_finer_maps(flags, sides):
    model = part(modalities=("hr",), fusion=False, merge={"hr": flags})
    maps = model(inputs(("hr",)))
    assert [x.shape[-1] for x in maps.pyramid["hr"]] == sides


@torch.no_grad()
def test_what_is_missing_changes_nothing():
    """NaN marks pixels without an observation; a missing frame, cell or modality has no say."""
    model = Pretrained(MODEL)
    images = inputs()
    masks = {"ms": torch.ones(2, 3, 4, 4, dtype=torch.bool)}
    masks["ms"][:, 1] = False
    marked = {**images, "ms": images["ms"].clone()}
    marked["ms"][:, 1] = torch.nan
    by_mask = model(images, DAYS, valid=masks)
    by_nan = model(marked, DAYS)
    without = model(
        {**images, "ms": images["ms"][:, [0, 2]]}, {**DAYS, "ms": DAYS["ms"][:, [0, 2]]}
    )
    for maps in (by_nan, without):
        assert_close(maps.fused, by_mask.fused, rtol=1e-9, atol=1e-9)
        assert_close(maps.vectors["ms"], by_mask.vectors["ms"])
    assert not by_nan.valid["ms"][:, 1].any() and by_nan.valid["ms"][:, 0].all()
    alone = model({"sar": images["sar"]}, DAYS)
    nothing = model({"sar": images["sar"], "hr": torch.full_like(images["hr"], torch.nan)}, DAYS)
    assert_close(alone.fused, nothing.fused, rtol=1e-9, atol=1e-9)
    assert not nothing.vectors["hr"].any()


@torch.no_grad()
def test_the_region_is_read_if_given():
    model = Pretrained(MODEL)
    plain, here = model(inputs(), DAYS), model(inputs(), DAYS, region=torch.tensor([0, 2]))
    assert_close(plain.fused[:, :32], here.fused[:, :32])
    assert not plain.fused[:, 32:].any() and here.fused[:, 32:].any()


def test_frozen_parts_keep_still():
    model = Pretrained(MODEL, frozen=("tokenizers", "backbone")).train()
    assert not model.trunk.backbone.training and model.trunk.fusion.training
    model(inputs(), DAYS).fused.sum().backward()
    with_gradient = {
        name.split(".")[0] for name, p in model.trunk.named_parameters() if p.grad is not None
    }
    assert "fusion" in with_gradient and not with_gradient & {"tokenizers", "backbone"}
    MODEL.requires_grad_(True)
    MODEL.zero_grad()


def test_a_fixed_gate_takes_no_gradient_and_changes_no_value():
    fixed = part(fixed_gate=True)
    free = part()
    outputs = [model(inputs(), DAYS).fused for model in (fixed, free)]
    assert_close(*outputs, rtol=0, atol=0)
    for output in outputs:
        output.square().sum().backward()
    gates = [
        {name: p.grad for name, p in model.named_parameters() if ".gate.wg." in name}
        for model in (fixed, free)
    ]
    assert all(grad is None for grad in gates[0].values()) and all(
        grad.any() for grad in gates[1].values()
    )
    other = [p.grad for name, p in fixed.named_parameters() if "experts" in name]
    assert any(grad is not None and grad.any() for grad in other)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": {}}, "expected some of hr, ms, sar, found none"),
        ({"images": {"uav": torch.zeros(1, 3, 8, 8)}}, "found uav"),
        (
            {"images": {"hr": torch.zeros(1, 4, 32, 32)}},
            "with 3 bands and sides that are multiples of 4",
        ),
        ({"images": {"hr": torch.zeros(1, 3, 30, 32)}}, r"found \(1, 3, 30, 32\); crop or pad"),
        ({"images": {"hr": torch.zeros(3, 32, 32)}}, r"found \(3, 32, 32\)"),
        ({"days": {}}, r"days hr: expected the day .* shape \(2, 1\), found none; .* fusion=False"),
        (
            {"days": {**DAYS, "ms": torch.zeros(2, 5)}},
            r"days ms: .* shape \(2, 3\), found \(2, 5\)",
        ),
        (
            {"valid": {"ms": torch.ones(2, 3, 3, 3, dtype=torch.bool)}},
            r"grid that divides \(4, 4\) pixels, found \(3, 3\)",
        ),
        (
            {"images": {**inputs(), "ms": torch.zeros(2, 3, 10, 8, 16)}},
            r"the same ground in all modalities, found sides of .*'ms': \(8, 16\)",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(change, message):
    model = Pretrained(MODEL)
    with pytest.raises(ModelError, match=message) as error:
        model(**({"images": inputs(), "days": DAYS} | change))
    assert "\n" not in str(error.value)


def test_unknown_parts_cannot_be_frozen():
    with pytest.raises(
        ModelError,
        match="frozen: expected some of tokenizers, backbone, fusion, context, found head",
    ):
        Pretrained(MODEL, frozen=("head",))
    with pytest.raises(ModelError, match=r"frozen: .* write \('backbone',\) for one part"):
        Pretrained(MODEL, frozen="backbone")


def test_stored_integers_are_refused_with_what_normalises_them():
    model = part(modalities=("hr",), fusion=False)
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with pytest.raises(
        ModelError, match=r"images hr: .* float type, found torch.uint8; .*normalise"
    ):
        model({"hr": pixels})


def test_a_tensor_alone_is_explained():
    model = part(fusion=False)
    with pytest.raises(ModelError, match=r"with the bands of ms; call model\({'ms': images}\)"):
        model(torch.zeros(1, 10, 16, 16))
    with pytest.raises(ModelError, match="with the bands of none of them"):
        model(torch.zeros(1, 7, 16, 16))
