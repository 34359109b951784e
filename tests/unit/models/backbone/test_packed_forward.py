"""One packed pass through the whole model equals a pass for each modality and view size: values and
gradients."""

import pytest
import torch

from engine.bench.packed import image_by_image, one_by_one, packed, random_views
from models.features import FUSED
from models.initialise import initialise
from models.skysense import SkySense
from models.spec import ContextSpec, FusionSpec, ModelSpec, MoESpec

SPEC = ModelSpec.skysense_v2().variant(
    widths=(16, 32, 64, 128),
    head_dim=16,
    depths=(2, 2, 2, 2),
    window=4,
    moe=MoESpec(blocks=(5, 7), experts=3, capacity_factor=0.0),
    fusion=FusionSpec(width=32, layers=2, heads=2),
    context=ContextSpec(regions=2, prototypes=4, width=16),
)


@pytest.fixture(scope="module")
def case():
    """A float64 model with its Swin branches open (they start at zero), and views with what real
    ones lack."""
    model = SkySense(SPEC)
    initialise(model, 0)
    with torch.no_grad():
        for stage in model.backbone.stages[:2]:
            for block in stage.blocks:
                block.norm1.weight.fill_(0.5)
                block.norm2.weight.fill_(0.5)
    views = random_views(SPEC, 2, torch.device("cpu"))
    for inputs in views.values():
        inputs.images = {name: x[:, :2, :3].double() for name, x in inputs.images.items()}
        inputs.valid = {name: x[:, :2, :3].clone() for name, x in inputs.valid.items()}
        inputs.days = {
            name: x[:, :2, :3] + torch.arange(x[:, :2, :3].shape[2]) * 40
            for name, x in inputs.days.items()
        }
        inputs.valid["ms"][0] = False  # a sample without a sensor
        inputs.valid["sar"][1, :, 2] = False  # a series with a frame less
        clouds = inputs.valid["hr"].shape[-2] // 4  # rows of pixels
        inputs.valid["hr"][:, 0, :, :clouds] = False
    return model.double(), views


def run(model, views, way):
    model.zero_grad(set_to_none=True)
    found = way(model, views)
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for features in found.values():
        for name, maps in features.maps.items():
            weight = torch.randn(maps.shape, generator=generator, dtype=torch.float64)
            total = total + (maps * weight).where(features.valid[name][..., None], 0.0).sum()
    total.backward()
    return found, {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("way", [one_by_one, image_by_image])
def test_values_and_gradients_are_equal_to_rounding(case, way):
    (one, gradients), (other, theirs) = run(*case, packed), run(*case, way)
    for size, features in one.items():
        assert features.maps.keys() == other[size].maps.keys() == {"hr", "ms", "sar", FUSED}
        for name, maps in features.maps.items():
            valid = features.valid[name]
            assert torch.equal(valid, other[size].valid[name])
            if name != FUSED:
                assert 0 < valid.sum() < valid.numel()
            torch.testing.assert_close(
                maps[valid], other[size].maps[name][valid], rtol=1e-9, atol=1e-9
            )
    assert gradients.keys() == theirs.keys() and len(gradients) > 50
    for name, gradient in gradients.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(
            gradient / scale, theirs[name] / scale, rtol=0, atol=1e-8, msg=name
        )
