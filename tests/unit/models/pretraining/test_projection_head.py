"""The projection head against its formula, and its size."""

import math

import pytest
import torch
from torch import nn

from models.errors import ModelError
from models.pretraining.projection_head import ProjectionHead
from models.spec import HeadSpec

SPEC = HeadSpec(layers=3, hidden=12, bottleneck=5, prototypes=9)


def make(spec=SPEC, width=7, seed=0):
    head = ProjectionHead(width, spec)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=generator)
    return head


def cosines(head, x):
    features, prototypes = head(x)
    return features @ prototypes.T


def by_formula(x, parameters):
    """float64: linear, gelu, linear, gelu, linear, unit norm, cosines with the rows of the last
    weight."""
    w1, b1, w2, b2, w3, b3, last = parameters
    for w, b in ((w1, b1), (w2, b2)):
        x = x @ w.T + b
        x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    x = x @ w3.T + b3
    x = x / x.square().sum(-1, keepdim=True).sqrt()
    return x @ (last / last.square().sum(-1, keepdim=True).sqrt()).T


def test_equals_the_formula_with_gradients():
    head = make()
    x = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(2))
    parameters = [p.detach().double().requires_grad_() for p in head.parameters()]
    exact = x.detach().double().requires_grad_()
    expected, found = by_formula(exact, parameters), cosines(head, x)
    torch.testing.assert_close(found, expected.float())
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    for parameter, reference in zip([x, *head.parameters()], [exact, *parameters]):
        torch.testing.assert_close(parameter.grad, reference.grad.float(), rtol=1e-4, atol=1e-5)


def test_only_the_direction_of_the_last_weight_counts():
    head, x = make(), torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    before = cosines(head, x)
    with torch.no_grad():
        head.last.weight *= torch.rand(9, 1, generator=torch.Generator().manual_seed(2)) * 100 + 0.1
    torch.testing.assert_close(cosines(head, x), before)
    assert before.abs().max() <= 1 + 1e-6
    assert "last.weight" in dict(head.named_parameters()) and head.last.bias is None


def test_bf16_weights_give_float32_cosines_close_to_exact():
    head, x = make(), torch.randn(6, 7, generator=torch.Generator().manual_seed(1))
    expected = cosines(head, x)
    found = cosines(head.bfloat16(), x)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05
    # the features are not rounded to bf16's 8 bits
    assert not torch.equal(found, found.bfloat16().float())


def test_no_rows_give_no_logits_and_zero_gradients():
    head = make()
    cosines(head, torch.zeros(0, 7)).sum().backward()
    assert all((p.grad == 0).all() for p in head.parameters())


@pytest.mark.parametrize(
    "layers,expected",
    [(1, [(7, 5)]), (2, [(7, 12), (12, 5)]), (4, [(7, 12), (12, 12), (12, 12), (12, 5)])],
)
def test_number_of_layers(layers, expected):
    head = make(HeadSpec(layers=layers, hidden=12, bottleneck=5, prototypes=9))
    assert [(layer.in_features, layer.out_features) for layer in head.mlp] == expected
    assert cosines(head, torch.ones(2, 7)).shape == (2, 9)
    with pytest.raises(ModelError, match="expected at least 1"):
        ProjectionHead(7, HeadSpec(layers=0))


def test_size_at_full_scale():
    with torch.device("meta"):
        heads = {width: ProjectionHead(width, HeadSpec()) for width in (2816, 1536)}
    sizes = {width: sum(p.numel() for p in head.parameters()) for width, head in heads.items()}
    assert sizes[2816] == 2817 * 2048 + 2049 * 2048 + 2049 * 256 + 65536 * 256 == 27_267_328
    assert sizes[1536] == sizes[2816] - (2816 - 1536) * 2048
    assert all(isinstance(layer, nn.Linear) for layer in ProjectionHead(7, SPEC).mlp)
