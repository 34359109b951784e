"""The learning loss against loops in float64, and the teacher's targets and figures."""

import math

import numpy as np
import pytest
import torch

from models.losses.dino import (
    Centre, DinoSpec, cross_entropy, paired_cross_entropy, share, sharpen, teacher_statistics, teacher_targets)
from models.losses.sinkhorn import sinkhorn
from models.reducer import Reducer
from tests.unit.formulas import loss_by_loops
from tests.unit.ranks import run_ranks

SPEC = DinoSpec(student_temperature=0.1, teacher_temperature=0.05, iterations=3)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cross_entropy_and_its_gradient_equal_the_formula():
    logits = draw(5, 6).clamp(-1, 1).requires_grad_()
    targets = draw(5, 6, seed=1).softmax(-1)
    exact = logits.detach().double().requires_grad_()
    expected = torch.stack([loss_by_loops(x, p, 0.1) for x, p in zip(exact, targets.double())])
    found = cross_entropy(logits, targets, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    weights = draw(5, seed=2)
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    torch.testing.assert_close(logits.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


def test_half_precision_logits_are_computed_in_float32():
    logits, targets = draw(4, 8).bfloat16(), draw(4, 8, seed=1).softmax(-1)
    assert torch.equal(cross_entropy(logits, targets, 0.1), cross_entropy(logits.float(), targets, 0.1))


def test_summed_targets_give_the_summed_loss():
    logits, a, b = draw(5, 6), draw(5, 6, seed=1).softmax(-1), draw(5, 6, seed=2).softmax(-1)
    torch.testing.assert_close(cross_entropy(logits, a + b, 0.3),
                               cross_entropy(logits, a, 0.3) + cross_entropy(logits, b, 0.3))


def test_sharpen_by_sinkhorn_or_by_a_running_mean():
    logits, mask = draw(6, 4), torch.tensor([1, 1, 0, 1, 1, 1], dtype=torch.bool)
    assert torch.equal(sharpen(logits, mask, SPEC, Reducer()), sinkhorn(logits, 0.05, 3, mask, Reducer()))
    centre = Centre(4)
    centre.update(torch.tensor([10.0, 0.0, -5.0, 1.0]))
    logits[2] = float("nan")
    found = sharpen(logits, mask, SPEC, Reducer(), centre)
    for i in range(6):
        x = [(float(logits[i, k]) - float(centre.value[k])) / 0.05 for k in range(4)]
        expected = [math.exp(v - max(x)) / sum(math.exp(w - max(x)) for w in x) for v in x] if mask[i] else [0] * 4
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-6)


def test_centre_is_read_without_being_moved_and_moves_by_its_momentum():
    centre, logits = Centre(4, momentum=0.75), draw(6, 4)
    mask = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    logits[1] = float("inf")
    found = teacher_targets(logits, mask, SPEC, Reducer(), centre)
    assert (centre.value == 0).all()  # a skipped step ends here
    torch.testing.assert_close(found.centre, logits[mask].mean(0))
    centre.update(found.centre)
    centre.update(found.centre)
    torch.testing.assert_close(centre.value, logits[mask].mean(0) * (0.25 + 0.75 * 0.25))
    assert "value" in centre.state_dict()
    assert teacher_targets(logits, mask, SPEC, Reducer()).centre is None


def test_centre_stays_where_it_is_without_valid_rows():
    centre = Centre(4, momentum=0.5)
    centre.update(torch.arange(4.0))
    before = centre.value.clone()
    centre.update(centre.batch_mean(draw(3, 4), torch.zeros(3, dtype=torch.bool), Reducer()))
    torch.testing.assert_close(centre.value, before)


def test_centre_is_the_mean_of_the_global_batch():
    logits, mask = draw(9, 4), torch.arange(9) % 4 > 0
    rows, masks = logits.split([2, 7]), mask.split([2, 7])
    found = run_ranks(2, lambda rank, reducer: Centre(4).batch_mean(rows[rank], masks[rank], reducer))
    for mean in found:
        torch.testing.assert_close(mean, logits[mask].mean(0))


def statistics_by_loops(targets):
    rows, prototypes = targets.shape
    entropy = sum(-p * math.log(p) for row in targets.tolist() for p in row if p > 0) / rows
    mean = [sum(targets[:, k].tolist()) / rows for k in range(prototypes)]
    used = {max(range(prototypes), key=lambda k: row[k]) for row in targets.tolist()}
    return entropy, sum(-p * math.log(p) for p in mean if p > 0), len(used) / prototypes


def test_statistics_equal_loops_on_any_number_of_ranks():
    targets = (8 * draw(10, 5)).softmax(-1)
    mask = torch.arange(10) % 3 > 0
    targets = targets.where(mask[:, None], 0.0)
    expected = statistics_by_loops(targets[mask])
    np.testing.assert_allclose(teacher_statistics(targets, mask, Reducer()), expected, rtol=1e-5)
    parts, masks = targets.split([4, 0, 6]), mask.split([4, 0, 6])
    for found in run_ranks(3, lambda rank, reducer: teacher_statistics(parts[rank], masks[rank], reducer)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_statistics_of_a_collapsed_a_silent_and_an_absent_teacher():
    mask = torch.ones(6, dtype=torch.bool)
    one = torch.eye(3)[torch.zeros(6, dtype=torch.long)]
    np.testing.assert_allclose(teacher_statistics(one, mask, Reducer()), (0, 0, 1 / 3), atol=1e-6)
    uniform = torch.full((6, 3), 1 / 3)
    np.testing.assert_allclose(teacher_statistics(uniform, mask, Reducer())[:2], math.log(3), rtol=1e-6)
    assert teacher_statistics(0 * uniform, ~mask, Reducer()) == (0, 0, 0)


def test_paired_cross_entropy_equals_loops_over_pairs():
    logits, targets = draw(2, 3, 4, 5).requires_grad_(), draw(2, 2, 4, 5, seed=1).softmax(-1)
    generator = torch.Generator().manual_seed(2)
    mask, target_mask = torch.rand(2, 3, 4, generator=generator) > 0.3, torch.rand(2, 2, 4, generator=generator) > 0.3
    targets = targets.where(target_mask[..., None], 0.0)
    partners = torch.tensor([[0, 1], [1, 0], [1, 1]], dtype=torch.bool)
    total, count = paired_cross_entropy(logits, mask, targets, target_mask, partners, 0.2)
    exact, expected, pairs = logits.detach().double().requires_grad_(), 0.0, 0
    for b, s, t, n in np.ndindex(2, 3, 2, 4):
        if partners[s, t] and mask[b, s, n] and target_mask[b, t, n]:
            expected, pairs = expected + loss_by_loops(exact[b, s, n], targets[b, t, n].double(), 0.2), pairs + 1
    assert int(count) == pairs > 0
    torch.testing.assert_close(total, expected.float(), rtol=1e-5, atol=1e-5)
    total.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world_size", [1, 3])
def test_shares_average_to_the_global_mean(world_size):
    totals, counts = torch.tensor([6.0, 0.0, 3.0])[:world_size], torch.tensor([2, 0, 4])[:world_size]
    found = run_ranks(world_size, lambda rank, reducer: share(totals[rank], counts[rank], reducer))
    assert float(sum(found)) / world_size == pytest.approx(float(totals.sum() / counts.sum()))
    assert share(torch.tensor(0.0), torch.tensor(0), Reducer()) == 0
