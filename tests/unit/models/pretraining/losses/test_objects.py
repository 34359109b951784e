"""Objects: clusters of the cells that two views share."""

import math

import torch

from models.pretraining.losses.dino import DinoSpec
from models.pretraining.losses.multi_granularity import GranularitySpec, Matched, objects
from tests.unit.models.pretraining.losses.granularity_by_loops import SPEC


def cells_of(teacher, student, mask):
    """One pair of one sample and frame: (n, D) maps on a square grid."""
    side = math.isqrt(len(mask))

    def grid(x):
        return x.view(1, 1, 1, side, side, -1)

    return Matched(
        grid(student),
        grid(teacher)[:, :, None],
        mask.view(1, 1, 1, 1, side, side),
        torch.ones(1, 1, dtype=torch.bool),
        1,
    )


def test_objects_separate_clear_groups_and_pair_the_same_ground():
    """Four kinds of ground in quarters of a view: each object is one kind, in both branches."""
    kind = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3])
    teacher, student = torch.eye(5)[kind], 10.0 * kind[:, None].expand(-1, 5)
    spec = GranularitySpec(DinoSpec(), clusters=4, cluster_epsilon=0.05)
    own, other, mask = objects(cells_of(teacher, student, torch.ones(16, dtype=torch.bool)), spec)
    torch.testing.assert_close(other[0, 0, 0, 0], torch.eye(5)[:4], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        own[0, 0, 0, 0, :, 0], torch.tensor([0.0, 10, 20, 30]), atol=1e-3, rtol=0
    )
    assert mask.all()


def test_number_of_objects_and_pairs_with_too_few_cells():
    generator = torch.Generator().manual_seed(0)
    for cells, clusters, expected in (
        (1, 16, 1),
        (4, 16, 1),
        (16, 16, 4),
        (25, 16, 6),
        (64, 16, 16),
        (64, 7, 7),
    ):
        x = torch.randn(cells, 5, generator=generator)
        mask = torch.arange(cells) < expected  # just enough
        spec = GranularitySpec(DinoSpec(), clusters=clusters)
        own, other, enough = objects(cells_of(x, x, mask), spec)
        assert own.shape[-2:] == other.shape[-2:] == (expected, 5) and enough.all()
        torch.testing.assert_close(own, other)
        mask[0] = False
        own, other, enough = objects(cells_of(x, x, mask), spec)
        assert not enough.any() and own.isfinite().all()


def test_objects_take_no_gradient_from_the_assignment():
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    student = x.clone().requires_grad_()
    own, other, _ = objects(cells_of(x, student, torch.ones(16, dtype=torch.bool)), SPEC)
    own.sum().backward()
    assert not other.requires_grad
    # every object is a weighted mean, so all shares of a channel sum to the number of objects
    torch.testing.assert_close(student.grad.sum(0), torch.full((5,), 3.0))
