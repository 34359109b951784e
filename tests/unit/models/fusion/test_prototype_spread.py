"""Figures of the prototypes against NumPy in float64."""

import numpy as np
import torch

from models.fusion.prototype_spread import prototype_spread


def draw():
    return torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0)) + 2.0


def test_figures_equal_numpy():
    prototypes, cells = draw(), torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    has_region = torch.tensor([True, False, True, True, False])
    found = prototype_spread(prototypes, cells, has_region)
    cosines, ranks, variances = [], [], []
    for own in prototypes[has_region].double().numpy():
        unit = own / np.linalg.norm(own, axis=1, keepdims=True)
        cosines.append((unit @ unit.T)[~np.eye(6, dtype=bool)].mean())
        power = np.linalg.eigvalsh(np.cov(own.T, bias=True))
        ranks.append(power.sum() ** 2 / (power**2).sum())
        variances.append(power.sum())
    expected = [3, sum(cosines), sum(ranks), sum(variances), 1 + 4 + 8]
    np.testing.assert_allclose(torch.stack(found), expected, rtol=1e-5)


def test_equal_prototypes_have_no_spread():
    same = draw()[:, :1].expand(5, 6, 4)
    found = prototype_spread(same, torch.ones(5), torch.ones(5, dtype=torch.bool))
    assert found.prototypes < 1e-10
    torch.testing.assert_close(found.cosine, torch.tensor(5.0))
    assert torch.stack(found).isfinite().all()


def test_samples_without_a_region_do_not_count_even_if_nan():
    prototypes = draw()
    prototypes[1] = torch.nan
    has_region = torch.tensor([True, False, True, True, True])
    found = prototype_spread(prototypes, torch.ones(5), has_region)
    assert torch.stack(found).isfinite().all()
    found = prototype_spread(prototypes, torch.ones(5), torch.zeros(5, dtype=torch.bool))
    assert (torch.stack(found) == 0).all()
