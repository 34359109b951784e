"""The query decoder against torch's own decoder layer, and its masks."""

import pytest
import torch
from torch import nn

from models.errors import ModelError
from models.pretraining.query_decoder import QueryDecoder

WIDTH, QUERIES, HEADS = 16, 3, 4


def make(in_width=WIDTH, seed=0):
    decoder = QueryDecoder(in_width, WIDTH, queries=QUERIES, heads=HEADS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return decoder


def draw(maps=2, cells=6, width=WIDTH, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(maps, cells, generator=generator) > 0.4
    mask[:, 0] = True
    return torch.randn(maps, cells, width, generator=generator), mask


def reference(decoder):
    """torch's pre-norm decoder layer in float64 with the same weights."""
    layer = nn.TransformerDecoderLayer(
        WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
    )
    attentions = (
        (layer.self_attn, decoder.self_attention),
        (layer.multihead_attn, decoder.cross_attention),
    )
    with torch.no_grad():
        for theirs, ours in attentions:
            theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
            theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
            theirs.out_proj.load_state_dict(ours.out.state_dict())
        for theirs, ours in (
            (layer.norm1, decoder.norm1),
            (layer.norm2, decoder.norm2),
            (layer.norm3, decoder.norm3),
            (layer.linear1, decoder.fc1),
            (layer.linear2, decoder.fc2),
        ):
            theirs.load_state_dict(ours.state_dict())
    return layer.double()


def test_equals_torch_with_gradients():
    decoder, (cells, mask) = make(), draw()
    layer, norm = reference(decoder), nn.LayerNorm(WIDTH)
    norm.load_state_dict(decoder.norm.state_dict())
    cells.requires_grad_()
    exact, queries = (
        cells.detach().double().requires_grad_(),
        decoder.queries.detach().double().requires_grad_(),
    )
    expected = norm.double()(layer(queries.expand(2, -1, -1), exact, memory_key_padding_mask=~mask))
    found = decoder(cells, mask)
    assert found.shape == (2, QUERIES, WIDTH)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    torch.testing.assert_close(cells.grad, exact.grad.float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(decoder.queries.grad, queries.grad.float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        decoder.fc1.weight.grad, layer.linear1.weight.grad.float(), rtol=1e-3, atol=1e-4
    )


def test_masked_cells_have_no_influence_and_their_number_does_not_matter():
    decoder, (cells, mask) = make(in_width=10), draw(width=10)
    expected = decoder(cells, mask)
    spoilt = cells.where(mask[..., None], torch.nan).requires_grad_()
    found = decoder(spoilt, mask)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert spoilt.grad.isfinite().all() and (spoilt.grad[~mask] == 0).all()
    alone = decoder(cells[:1, mask[0]], mask[:1, mask[0]])
    torch.testing.assert_close(alone, expected[:1], rtol=1e-4, atol=1e-5)


def test_the_order_of_the_cells_carries_no_meaning_and_maps_do_not_mix():
    decoder, (cells, mask) = make(), draw()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(
        decoder(cells[:, order], mask[:, order]), decoder(cells, mask), rtol=1e-4, atol=1e-5
    )
    other = cells.clone()
    other[1] += 1
    torch.testing.assert_close(decoder(other, mask)[0], decoder(cells, mask)[0])
    assert not torch.allclose(decoder(other, mask)[1], decoder(cells, mask)[1])


def test_a_map_without_a_valid_cell_is_finite():
    decoder, (cells, mask) = make(), draw()
    mask[1] = False
    cells[1] = float("nan")
    found = decoder(cells.requires_grad_(), mask)
    found[0].sum().backward()
    assert found.isfinite().all() and cells.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in decoder.parameters())


def test_first_values_and_impossible_sizes():
    decoder = QueryDecoder(10, WIDTH, queries=QUERIES, heads=HEADS)
    decoder.init_parameter("queries", decoder.queries, torch.Generator().manual_seed(0))
    assert (decoder.queries[0] != decoder.queries[1]).all()
    with pytest.raises(ValueError, match="expected the parameter 'queries'"):
        decoder.init_parameter("other", decoder.queries, torch.Generator())
    with pytest.raises(ModelError, match="not a multiple of heads"):
        QueryDecoder(10, 15, queries=QUERIES, heads=HEADS)


def test_size_at_full_scale():
    with torch.device("meta"):
        decoder = QueryDecoder(1536, 1024, queries=16, heads=16)
    w = 1024
    attention = 2 * (w * w + w) + 2 * (w * w + w)
    cross = 2 * (w * w + w) + 2 * (1536 * w + w)
    expected = 16 * w + attention + cross + (4 * w * w + 4 * w) + (4 * w * w + w) + 4 * 2 * w
    assert sum(p.numel() for p in decoder.parameters()) == expected == 17_863_680
