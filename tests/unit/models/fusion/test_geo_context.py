"""Geo-context prototypes against equations 8-10 written as loops, and one rank against several."""

import copy

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.fusion.geo_context import GeoContext
from models.initialise import initialise
from models.reducer import Reducer
from models.spec import ContextSpec
from tests.unit.models.fusion.regions import SyntheticRegions, collapse_figures
from tests.unit.ranks import run_ranks

SPEC = ContextSpec(regions=6, prototypes=4, width=8, momentum=0.9, epsilon=0.1, iterations=3)


def make(seed=0, spec=SPEC):
    context = GeoContext(16, spec)
    context.init_parameter("prototypes", context.prototypes, torch.Generator().manual_seed(seed))
    return context


def draw(samples=4, cells=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(samples, cells, SPEC.width, generator=generator)
    mask = torch.rand(samples, cells, generator=generator) > 0.3
    return query, mask, torch.tensor([2, 5, 2, 0, 5, 5, 1, 2])[:samples]


def values_by_loops(query, mask, prototypes):
    """Equations 8 and 9 for the samples (n, G, d) of one region in float64, over all their cells;
    cosines are of differences to the means, columns of S sum to one."""
    cells = query[mask].double().numpy()
    own = prototypes.double().numpy()
    shares = np.empty((len(cells), len(own)))
    for i, q in enumerate(cells - cells.mean(0)):
        for j, p in enumerate(own - own.mean(0)):
            shares[i, j] = np.exp(q @ p / (np.linalg.norm(q) * np.linalg.norm(p)) / SPEC.epsilon)
    for _ in range(SPEC.iterations):
        for j in range(len(own)):
            shares[:, j] /= shares[:, j].sum() * len(own)
        for i in range(len(cells)):
            shares[i] /= shares[i].sum() * len(cells)
    return np.stack([shares[:, j] / shares[:, j].sum() @ cells for j in range(len(own))])


def test_read_is_attention_over_the_region():
    context, (query, _, _) = make(), draw()
    region = torch.tensor([2, -1, 0, 5])
    query.requires_grad_()
    found = context.read(query, region)
    for b in (0, 2, 3):
        own = context.prototypes[region[b]].double().numpy()
        keys = own - own.mean(0)
        differences = query[b].detach().double().numpy() - own.mean(0)
        length = np.linalg.norm(differences, axis=1, keepdims=True)
        q = np.sqrt(SPEC.width) * differences / length / np.sqrt(np.mean(keys**2))
        logits = q @ own.T / np.sqrt(SPEC.width)  # softmax(Q K^T / sqrt d) V as printed
        weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(found[b].detach().numpy(), weights @ own, rtol=1e-5, atol=1e-6)
    assert (found[1] == 0).all()
    found.square().sum().backward()
    assert (query.grad[1] == 0).all() and (query.grad[[0, 2, 3]] != 0).any(-1).all()
    assert torch.equal(context.query(torch.ones(3, 16)), context.projection(torch.ones(3, 16)))


def test_what_all_cells_and_prototypes_share_does_not_change_what_is_read():
    context, (query, _, region) = make(), draw()
    expected = context.read(query, region)
    shift, factor = 20 * torch.ones(SPEC.width), 0.01
    context.prototypes.mul_(factor).add_(shift)
    found = (context.read(factor * query + shift, region) - shift) / factor
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_update_is_one_assignment_of_a_region_and_a_moving_average():
    context, (query, mask, region) = make(), draw()
    before = context.prototypes.clone()
    assert context.update(query, mask, region, reducer=Reducer()).lost_regions == 0
    members = {2: [0, 2], 5: [1], 0: [3]}
    for r in range(SPEC.regions):
        if r not in members:
            assert torch.equal(context.prototypes[r], before[r])
            continue
        values = values_by_loops(query[members[r]], mask[members[r]], before[r])
        expected = 0.9 * before[r].double().numpy() + 0.1 * values
        np.testing.assert_allclose(context.prototypes[r].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_values_are_weighted_means_of_the_valid_cells():
    context, (query, mask, region) = make(), draw()
    query[:, :, 0] = 3.0  # a constant channel comes back as it is, whatever the number of cells
    context.momentum = 0.0
    context.update(query, mask, region, reducer=Reducer())
    assert torch.allclose(context.prototypes[[0, 2, 5], :, 0], torch.full((3, 4), 3.0))


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_update_does_not_depend_on_the_number_of_ranks(world_size):
    query, mask, region = draw(samples=8)
    mask[3] = False  # a rank may hold a sample that says nothing
    alone = make()
    figures = torch.stack(alone.update(query, mask, region, reducer=Reducer()).spread)

    def work(rank, reducer):
        own = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
        context = make()
        update = context.update(query[own], mask[own], region[own], reducer=reducer)
        return context.prototypes, torch.stack(update.spread)

    ranks = run_ranks(world_size, work)
    for prototypes, _ in ranks:
        assert torch.equal(prototypes, ranks[0][0])
        torch.testing.assert_close(prototypes, alone.prototypes, rtol=1e-5, atol=1e-6)
    total = torch.stack([spread for _, spread in ranks]).sum(dim=0)
    torch.testing.assert_close(total, figures, rtol=1e-5, atol=1e-6)
    assert not torch.equal(alone.prototypes, make().prototypes)


def test_order_of_the_samples_does_not_matter():
    query, mask, region = draw(samples=8)
    contexts = make(), make()
    turned = torch.tensor([5, 2, 7, 0, 3, 1, 6, 4])
    contexts[0].update(query, mask, region, reducer=Reducer())
    contexts[1].update(query[turned], mask[turned], region[turned], reducer=Reducer())
    torch.testing.assert_close(contexts[0].prototypes, contexts[1].prototypes)


def test_masked_cells_and_samples_without_region_or_cells_have_no_influence():
    query, mask, region = draw()
    expected = make()
    expected.update(query[:2], mask[:2], region[:2], reducer=Reducer())
    spoilt = query.where(mask[..., None], torch.nan)
    spoilt[2] = torch.nan
    region = torch.tensor([2, 5, -1, 0])
    mask[3] = False
    context = make()
    spread = context.update(spoilt, mask, region, reducer=Reducer()).spread
    assert spread.samples == 2 and torch.stack(spread).isfinite().all()
    torch.testing.assert_close(context.prototypes, expected.prototypes)
    assert torch.equal(context.prototypes[0], make().prototypes[0])
    spread = context.update(spoilt, mask, torch.full((4,), -1), reducer=Reducer()).spread
    assert (torch.stack(spread) == 0).all()
    torch.testing.assert_close(context.prototypes, expected.prototypes)


@pytest.mark.parametrize("cosine", [0.5, 0.75, 0.9, 0.97])
@pytest.mark.parametrize("samples", [1, 4])
def test_prototypes_of_a_region_differ_however_much_its_cells_share(cosine, samples):
    """With the cosines of equation 8 uncentred, the spread is below 0.001 from 0.75 on."""
    figures = collapse_figures(SyntheticRegions(cosine), samples=samples, updates=400)
    assert figures.spread > 0.1
    assert figures.rank > 4
    assert figures.explained > 0.25  # of the cells' variance, by the nearest prototype
    assert figures.read > 0.5 * figures.spread  # variance inside a sample, of what is read


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_and_nothing_is_written(bad):
    context, (query, mask, region) = make(), draw()
    mask[1, 4] = True
    query[1, 4, 3] = bad
    assert context.update(query, mask, region, reducer=Reducer()).lost_regions == 1
    assert torch.equal(context.prototypes, make().prototypes)


def test_prototypes_stay_float32_and_move_in_a_bf16_module():
    context = make(spec=ContextSpec(regions=6, prototypes=4, width=8, momentum=0.9999))
    before = context.prototypes.clone()
    for cast in (
        context.bfloat16,
        context.half,
        lambda: context.to("cpu", torch.bfloat16),
        context.double,
        lambda: torch.nn.Sequential(context).bfloat16(),
    ):
        cast()
        assert context.prototypes.dtype == torch.float32 and torch.equal(context.prototypes, before)
    assert context.projection.weight.dtype == torch.bfloat16
    assert "prototypes" in dict(context.named_buffers()) and "prototypes" in context.state_dict()
    query, mask, region = draw()
    query = query.bfloat16()
    assert context.read(query, region).dtype == torch.bfloat16
    context.update(query, mask, region, reducer=Reducer())
    # a change of one in ten thousand: rounded to bf16 it would be lost
    assert (context.prototypes[[0, 2, 5]] != before[[0, 2, 5]]).float().mean() > 0.9
    assert torch.equal(copy.deepcopy(context).prototypes, context.prototypes)


def test_devices_are_followed():
    context = make().to("meta")
    assert context.prototypes.is_meta and context.prototypes.dtype == torch.float32
    context = context.bfloat16().to_empty(device="cpu")
    assert context.prototypes.device.type == "cpu" and context.prototypes.dtype == torch.float32
    context.load_state_dict(make().state_dict())
    assert torch.equal(context.prototypes, make().prototypes)


def test_prototypes_start_as_random_directions():
    assert GeoContext(16, SPEC).prototypes.isnan().all()  # a forgotten initialisation shows
    prototypes = make().prototypes
    torch.testing.assert_close(prototypes.norm(dim=-1), torch.ones(6, 4))
    assert torch.equal(prototypes, make().prototypes) and not torch.equal(
        prototypes, make(seed=1).prototypes
    )
    flat = prototypes.flatten(0, 1)
    assert ((flat @ flat.T - torch.eye(24)).abs() < 0.999).all()
    context = GeoContext(16, SPEC)
    initialise(context, seed=0)
    torch.testing.assert_close(context.prototypes.norm(dim=-1), torch.ones(6, 4))
    with pytest.raises(ModelError, match="expected 'prototypes'"):
        make().init_parameter("token", torch.zeros(1), torch.Generator())


def test_size_at_full_scale():
    with torch.device("meta"):
        context = GeoContext(1024, ContextSpec())
    assert context.prototypes.numel() == 209_715_200
    assert sum(p.numel() for p in context.parameters()) == 1024 * 512 + 512
