"""Running centre and shares of a global mean."""

import pytest
import torch

from models.pretraining.losses.dino import Centre, share
from models.reducer import Reducer
from tests.unit.ranks import run_ranks


def test_a_centre_moves_by_its_momentum_and_is_saved():
    centre, mean = Centre(4, momentum=0.75), torch.tensor([1.0, -2.0, 0.5, 8.0])
    centre.update(mean)
    centre.update(mean)
    torch.testing.assert_close(centre.value, mean * (0.25 + 0.75 * 0.25))
    assert "value" in centre.state_dict()


@pytest.mark.parametrize("world_size", [1, 3])
def test_shares_average_to_the_global_mean(world_size):
    totals, counts = (
        torch.tensor([6.0, 0.0, 3.0])[:world_size],
        torch.tensor([2, 0, 4])[:world_size],
    )
    found = run_ranks(world_size, lambda rank, reducer: share(totals[rank], counts[rank], reducer))
    assert float(sum(found)) / world_size == pytest.approx(float(totals.sum() / counts.sum()))
    assert share(torch.tensor(0.0), torch.tensor(0), Reducer()) == 0
