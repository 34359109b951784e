"""Patch embedding against the strided convolution it stands for."""

import pytest
import torch
import torch.nn.functional as F

from models.backbone.tokenizer import Tokenizer
from models.errors import ModelError
from models.spec import ModelSpec


def test_equals_strided_convolution():
    tokenizer = Tokenizer(10, 12, 4).double()
    images = torch.randn(
        3, 10, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    weight = tokenizer.projection.weight.view(12, 10, 4, 4)
    expected = F.conv2d(images, weight, tokenizer.projection.bias, stride=4).flatten(2).mT
    torch.testing.assert_close(tokenizer(images), expected, rtol=1e-12, atol=1e-12)


def test_parameters_of_table_6():
    spec = ModelSpec()
    sizes = {
        name: sum(p.numel() for p in Tokenizer(m.bands, spec.widths[0], spec.patch).parameters())
        for name, m in spec.modalities.items()
    }
    assert sizes == {"hr": 17_248, "ms": 56_672, "sar": 11_616}


def test_follows_the_type_of_its_weights():
    assert Tokenizer(2, 8, 4).bfloat16()(torch.zeros(1, 2, 4, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 2, 6, 8), (1, 2, 8, 9), (2, 8, 8)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ModelError, match="expected images of shape"):
        Tokenizer(2, 8, 4)(torch.zeros(shape))
