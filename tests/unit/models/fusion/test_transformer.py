"""The fusion transformer against torch.nn.TransformerEncoder, and its invariances."""

import pytest
import torch
from torch import nn

from models.errors import ModelError
from models.fusion.transformer import DAYS, CellSeries, Fusion, FusionLayer
from models.initialise import initialise
from models.recompute import BLOCKS, NONE
from models.spec import FusionSpec, ModelSpec

SPEC = FusionSpec(width=16, layers=3, heads=4)
FRAMES = {"hr": 1, "ms": 4, "sar": 3}


def make(recompute=NONE, spec=SPEC):
    fusion = Fusion(spec, 12, tuple(FRAMES), recompute=recompute).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return fusion


def series(images=2, cells=5, seed=0, frames=FRAMES):
    generator = torch.Generator().manual_seed(seed)
    tokens, valid, days = {}, {}, {}
    for name, count in frames.items():
        tokens[name] = torch.randn(
            images, count, cells, 12, generator=generator, dtype=torch.float64
        )
        valid[name] = torch.rand(images, count, cells, generator=generator) > 0.3
        days[name] = torch.randint(0, DAYS, (images, count), generator=generator)
    return CellSeries(tokens, valid, days)


def encoder_like(fusion):
    """torch's pre-norm encoder with the weights of ours, and their name -> ours."""
    layer = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(
        layer, len(fusion.layers), norm=nn.LayerNorm(16), enable_nested_tensor=False
    ).double()
    names = {
        "self_attn.in_proj_": "qkv.",
        "self_attn.out_proj.": "out.",
        "linear1.": "fc1.",
        "linear2.": "fc2.",
    }

    def own_name(key):
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        return key

    state = {key: fusion.state_dict()[own_name(key)] for key in encoder.state_dict()}
    encoder.load_state_dict(state)
    return encoder, {key: own_name(key) for key in state}


def test_equals_torch_encoder_cell_by_cell():
    """Values, and gradients of all parameters."""
    fusion, part = make(), series()
    encoder, names = encoder_like(fusion)
    found = fusion([part])[0]
    assert found.shape == (2, 5, 16)
    upstream = torch.randn(
        found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    gradients = torch.autograd.grad((found * upstream).sum(), fusion.parameters())
    ours = dict(zip(dict(fusion.named_parameters()), gradients))
    for m in range(2):
        for c in range(5):
            rows = [fusion.token]
            for name, count in FRAMES.items():
                for t in range(count):
                    if part.valid[name][m, t, c]:  # absent tokens are left out here, masked there
                        row = fusion.projections[name](part.tokens[name][m, t, c])
                        rows.append(row + fusion.day.weight[part.days[name][m, t]])
            expected = encoder(torch.stack(rows)[None])[0, 0]
            torch.testing.assert_close(found[m, c], expected, rtol=1e-10, atol=1e-10)
            (expected * upstream[m, c]).sum().backward()
    wanted = {names[key]: parameter.grad for key, parameter in encoder.named_parameters()}
    wanted |= {name: p.grad for name, p in fusion.named_parameters() if name not in wanted}
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-10, atol=1e-10, msg=name)


def test_masked_tokens_have_no_influence_even_nan():
    fusion, part = make(), series()
    clean = fusion([part])[0]
    spoilt = {
        n: t.where(part.valid[n][..., None], torch.nan).requires_grad_()
        for n, t in part.tokens.items()
    }
    found = fusion([CellSeries(spoilt, part.valid, part.days)])[0]
    assert torch.equal(found, clean)
    found.square().sum().backward()
    for name, x in spoilt.items():
        assert (x.grad[~part.valid[name]] == 0).all()
        assert (x.grad[part.valid[name]] != 0).any(-1).all()


def test_order_of_frames_has_no_meaning_but_their_days_have():
    fusion, part = make(), series()
    turned = CellSeries(*({n: t.flip(1) for n, t in field.items()} for field in part))
    torch.testing.assert_close(fusion([turned])[0], fusion([part])[0])
    wrong_days = CellSeries(turned.tokens, turned.valid, part.days)
    assert not torch.allclose(fusion([wrong_days])[0], fusion([part])[0])


def test_modalities_are_told_apart():
    fusion, part = make(), series(frames={"ms": 3, "sar": 3})
    swapped = CellSeries(*({"ms": field["sar"], "sar": field["ms"]} for field in part))
    assert not torch.allclose(fusion([swapped])[0], fusion([part])[0])


def test_cells_do_not_exchange():
    fusion, part = make(), series()
    part = CellSeries(
        part.tokens, {n: torch.ones_like(v) for n, v in part.valid.items()}, part.days
    )
    for x in part.tokens.values():
        x.requires_grad_()
    fusion([part])[0][1, 2].sum().backward()
    for x in part.tokens.values():
        touched = (x.grad != 0).any(-1)  # M T cells
        assert touched[1, :, 2].all()
        touched[1, :, 2] = False
        assert not touched.any()


@pytest.mark.parametrize("names", [["hr"], ["sar"], ["ms", "sar"], ["sar", "hr"]])
def test_any_subset_equals_masking_the_rest(names):
    fusion, part = make(), series()
    subset = CellSeries(*({n: field[n] for n in names} for field in part))
    masked = {n: v if n in names else torch.zeros_like(v) for n, v in part.valid.items()}
    expected = fusion([CellSeries(part.tokens, masked, part.days)])[0]
    torch.testing.assert_close(fusion([subset])[0], expected)


def test_views_of_several_sizes_in_one_call_equal_single_calls():
    fusion = make()
    parts = [series(), series(images=3, cells=2, seed=1), series(cells=1, seed=2, frames={"ms": 7})]
    found = fusion(parts)
    assert [x.shape for x in found] == [(2, 5, 16), (3, 2, 16), (2, 1, 16)]
    for x, part in zip(found, parts):
        torch.testing.assert_close(x, fusion([part])[0])


def test_a_cell_without_any_token_is_finite_and_the_same_everywhere():
    fusion, part = make(), series()
    absent = {n: torch.zeros_like(v) for n, v in part.valid.items()}
    nothing = {n: torch.full_like(t, torch.nan) for n, t in part.tokens.items()}
    found = fusion([CellSeries(nothing, absent, part.days)])[0]
    assert found.isfinite().all()
    torch.testing.assert_close(
        found, encoder_like(fusion)[0](fusion.token[None, None])[0, 0].expand_as(found)
    )


def test_leap_day_shares_the_last_row():
    fusion, part = make(), series()
    last, leap, first = (
        {n: torch.full_like(d, day) for n, d in part.days.items()} for day in (364, 365, 0)
    )
    outputs = [
        fusion([CellSeries(part.tokens, part.valid, days)])[0] for days in (last, leap, first)
    ]
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])


def test_recomputation_changes_nothing():
    gradients = []
    for recompute in (NONE, BLOCKS):
        fusion = make(recompute)
        fusion([series(), series(seed=1)])[1].square().sum().backward()
        gradients.append([p.grad for p in fusion.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_many_cells_are_attended_in_chunks(monkeypatch):
    fusion, part = make(), series(cells=7)
    expected = fusion([part])[0]
    monkeypatch.setattr("models.fusion.transformer.MAX_CELLS", 3)
    torch.testing.assert_close(fusion([part])[0], expected)


def test_unknown_or_no_modality_is_named():
    fusion, part = make(), series(frames={"ms": 2})
    with pytest.raises(ModelError, match="found .'lidar'."):
        fusion([CellSeries(*({"lidar": field["ms"]} for field in part))])
    with pytest.raises(ModelError, match="expected some of the modalities"):
        fusion([CellSeries({}, {}, {})])


def test_token_is_drawn_from_the_generator_alone():
    drawn = [make().token for _ in range(2)]
    for token in drawn:
        with torch.no_grad():
            make().init_parameter("token", token, torch.Generator().manual_seed(5))
    assert torch.equal(*drawn) and drawn[0].std() > 0
    with pytest.raises(ModelError, match="expected the parameter 'token'"):
        make().init_parameter("day", drawn[0], torch.Generator())


def test_every_parameter_gets_a_first_value():
    fusion = make()
    initialise(fusion, seed=0)
    assert fusion.token.std() > 0 and fusion.day.weight.std() > 0
    assert fusion([series()])[0].isfinite().all()


def test_parameters_of_the_full_size():
    spec = ModelSpec.skysense_v2()
    with torch.device("meta"):
        fusion = Fusion(spec.fusion, spec.widths[-1], tuple(spec.modalities))
    count = sum(p.numel() for p in fusion.parameters())
    layers = sum(p.numel() for p in fusion.layers.parameters())
    projection = sum(p.numel() for p in fusion.projections["hr"].parameters())
    width = 1024
    assert layers == 24 * (
        12 * width**2 + 13 * width
    )  # attention 4, MLP 8 matrices; biases 9, norms 4
    assert (
        round((layers + projection) / 1e6, 1) == 305.2
    )  # the identifiable core of table 6's fusion module
    assert count == layers + 3 * projection + DAYS * width + width + 2 * width
    assert isinstance(fusion.layers[0], FusionLayer) and len(fusion.layers) == 24
