"""Another implementation of the layer norms in a finished model: same parameters, same names, same
values."""

import importlib
import sys

import pytest
import torch
from torch import nn

from engine.config.load import load
from engine.errors import ConfigError
from engine.training.models import build_pair
from models.backbone.swin_v2 import BlockNorm
from models.errors import ModelError
from models.layer_norm import apex_obstacle, layer_norm_class, use_layer_norm
from models.reducer import Reducer
from tests.commands import TINY

APEX = "fused_layer_norm_cuda"


class Formula(nn.Module):
    """Layer norm written out."""

    def __init__(self, shape, eps):
        super().__init__()
        self.eps, self.weight, self.bias = (
            eps,
            nn.Parameter(torch.ones(shape)),
            nn.Parameter(torch.zeros(shape)),
        )

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight
            + self.bias
        )


def norms(seed=0):
    """Three norms at two depths, one with an eps of its own, none at its first values."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(6, 8), BlockNorm(8), nn.Sequential(nn.LayerNorm(8, eps=0.1), nn.LayerNorm(8))
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double()


def test_a_finished_model_keeps_parameters_names_and_values():
    model, x = norms(), torch.randn(5, 6, dtype=torch.float64)
    before, expected = dict(model.named_parameters()), model(x)
    use_layer_norm(model, Formula)
    assert [type(module) for module in model.modules()].count(Formula) == 3
    after = dict(model.named_parameters())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    torch.testing.assert_close(model(x), expected)


def test_every_norm_of_the_whole_model_is_reached():
    settings = load(TINY, ["skysense.data.shards=x", "skysense.ep_size=1"]).settings
    model = build_pair(settings, Reducer()).student
    names, count = (
        list(model.state_dict()),
        sum(isinstance(part, nn.LayerNorm) for part in model.modules()),
    )
    use_layer_norm(model, Formula)
    assert count == sum(isinstance(part, Formula) for part in model.modules()) > 20
    assert list(model.state_dict()) == names and not any(
        isinstance(part, nn.LayerNorm) for part in model.modules()
    )


def test_torch_is_the_default_and_changes_nothing():
    model = norms()
    parts = list(model.modules())
    use_layer_norm(
        model, layer_norm_class(load(TINY, ["skysense.data.shards=x"]).settings.layer_norm)
    )
    assert all(new is old for new, old in zip(model.modules(), parts, strict=True))


def test_apex_that_is_not_here_is_one_error_before_a_model_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex.normalization", None)
    settings = load(
        TINY, ["skysense.data.shards=x", "skysense.layer_norm=apex"]
    ).settings  # readable without Apex
    monkeypatch.setattr("engine.training.models.Pretraining", None)
    with pytest.raises(
        ModelError,
        match="layer_norm: expected Apex with its CUDA extensions for 'apex', found no "
        "apex.*; install it .* or set 'torch'",
    ):
        build_pair(settings, Reducer())


def test_an_unknown_implementation_is_refused():
    with pytest.raises(
        ConfigError, match="skysense.layer_norm: expected 'torch' or 'apex', found 'appex'"
    ):
        load(TINY, ["skysense.data.shards=x", "skysense.layer_norm=appex"])


def fused(device):
    """The norms of ``norms`` by Apex, and plain, on a device in float32, with an input."""
    pytest.importorskip(
        APEX, reason="needs Apex (docs/backends.md says how to install it)", exc_type=ImportError
    )
    plain, model = norms().to(device), norms().to(device, torch.float32)
    use_layer_norm(model, importlib.import_module("apex.normalization").FusedLayerNorm)
    return plain, model, torch.randn(50, 6, dtype=torch.float64, device=device)


def test_apex_has_the_same_names():
    plain, model, x = fused("cpu")
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(model(x.float()).double(), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_apex_equals_torch_on_a_gpu():
    plain, model, x = fused("cuda")
    assert apex_obstacle(APEX) is None and layer_norm_class("apex") is type(model[1])
    for parts, input in ((plain, x), (model, x.float())):
        parts(input).square().sum().backward()
    for name, parameter in model.named_parameters():
        expected = plain.get_parameter(name).grad
        torch.testing.assert_close(
            parameter.grad.double(), expected, rtol=1e-4, atol=1e-4 * expected.abs().max()
        )
