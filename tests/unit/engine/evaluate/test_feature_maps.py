"""Principal components of features as colours."""

import numpy as np
import torch

from data.audit.page.painting import INVALID
from engine.evaluate.feature_maps import components


def test_components_find_three_directions():
    rng = np.random.default_rng(0)
    colours = rng.uniform(size=(6, 6, 3)) * [9, 3, 1]
    basis = np.linalg.qr(rng.normal(size=(16, 3)))[0]
    maps = torch.from_numpy(colours @ basis.T + 5)
    valid = torch.ones(6, 6, dtype=torch.bool)
    valid[0, 0] = False
    halves = [(maps[:3], valid[:3]), (maps[3:], valid[3:])]  # two maps, taken together
    found = np.concatenate(components(halves))
    assert np.array_equal(found[0, 0], INVALID)
    rows = (colours @ basis.T)[valid.numpy()]
    _, vectors = np.linalg.eigh(np.cov(rows.T))  # another way to the principal directions
    for channel, direction in enumerate(vectors[:, ::-1].T[:3]):
        projected = (rows - rows.mean(0)) @ direction
        low, high = np.quantile(projected, (0.02, 0.98))
        expected = np.clip((projected - low) / (high - low), 0, 1)
        given = found[valid.numpy()][:, channel]
        error = min(abs(given - expected).max(), abs(given - (1 - expected)).max())
        assert error < 1e-6  # the sign is free


def test_components_of_equal_or_infinite_features_are_pale():
    valid = torch.ones(3, 3, dtype=torch.bool)
    for maps in (torch.ones(3, 3, 4), torch.full((3, 3, 4), torch.nan)):
        assert (components([(maps, valid)])[0] == INVALID).all()
