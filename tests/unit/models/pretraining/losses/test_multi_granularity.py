"""The three levels against equations 2-4 written as loops in float64, with gradients."""

import math

import numpy as np
import pytest
import torch

from models.pretraining.losses.dino import Centre
from models.pretraining.losses.multi_granularity import (
    ViewMaps,
    multi_granularity,
    partner_views,
)
from models.reducer import Reducer
from tests.unit.models.pretraining.losses.granularity_by_loops import (
    FRAMES,
    PROTOTYPES,
    SPEC,
    WIDTH,
    linear_heads,
    matched_cells,
    pairs_of,
    reference,
    scene,
)
from tests.unit.ranks import run_ranks


def callables(weights):
    """Heads of given weights, as functions."""
    return {name: lambda x, w=w: (x.float(), w) for name, w in weights.items()}


def run(student, teacher, reducer=None, spec=SPEC, centres=None, student_weights=None):
    return multi_granularity(
        student,
        teacher,
        student_heads=callables(student_weights or linear_heads(5)),
        teacher_heads=callables(linear_heads(6)),
        spec=spec,
        reducer=reducer or Reducer(),
        centres=centres,
    )


def with_gradients(student):
    return {
        size: views._replace(maps=views.maps.clone().requires_grad_())
        for size, views in student.items()
    }


@pytest.mark.parametrize("seed", [0, 30])
def test_all_levels_equal_the_equations_with_gradients(seed):
    student, teacher = scene(seed=seed)
    expected, maps, heads = reference(student, teacher, linear_heads(5))
    student = with_gradients(student)
    weights = {name: w.requires_grad_() for name, w in linear_heads(5).items()}
    found = run(student, teacher, student_weights=weights)
    for level, loss in expected.items():
        torch.testing.assert_close(found.losses[level].double(), loss, rtol=1e-4, atol=0)
        inputs = [*(views.maps for views in student.values()), *weights.values()]
        got = torch.autograd.grad(found.losses[level], inputs, retain_graph=True, allow_unused=True)
        want = torch.autograd.grad(
            loss, [*maps.values(), *heads.values()], retain_graph=True, allow_unused=True
        )
        for a, b in zip(got, want):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b.float(), rtol=1e-3, atol=1e-5)
    assert float(found.total.detach()) == pytest.approx(
        float(sum(expected.values()).detach()), rel=1e-4
    )


def test_each_place_goes_through_a_head_once():
    student, teacher = scene()
    rows = {}

    def counting(name, weights):
        def head(x):
            rows.setdefault(name, []).append(x.shape[:-1].numel())
            return x.float(), weights

        return head

    def counting_heads(who, seed):
        return {level: counting((who, level), w) for level, w in linear_heads(seed).items()}

    multi_granularity(
        student,
        teacher,
        student_heads=counting_heads("student", 5),
        teacher_heads=counting_heads("teacher", 6),
        spec=SPEC,
        reducer=Reducer(),
    )
    cells = {
        (size, b, s, t, f): matched_cells(student, teacher, size, b, s, t, f)
        for size, b, s, t, f in pairs_of(student, teacher)
    }
    used = {
        (size, b, s, f, i, j) for (size, b, s, _, f), found in cells.items() for i, j, _ in found
    }
    assert rows["student", "dense"][0] == len(used)
    assert rows["teacher", "dense"][0] == sum(map(len, cells.values())) > len(used)
    assert rows["teacher", "image"] == [2 * 2 * FRAMES]


def share_of_marked(student, teacher, level):
    """Share of a level's loss that the student's maps of the value 1 hold, others being 0.

    The teacher is the same everywhere, so its targets are uniform over two prototypes. For logits
    of +z and -z the loss of a row is log(2 cosh(z)): it differs from log 2 in marked rows alone.
    """
    weights = torch.zeros(2, WIDTH)
    weights[:, 0] = torch.tensor([1.0, -1.0])
    heads = callables({"image": weights, "dense": weights})
    found = multi_granularity(
        student,
        teacher._replace(maps=torch.ones_like(teacher.maps)),
        student_heads=heads,
        teacher_heads=heads,
        spec=SPEC,
        reducer=Reducer(),
    )
    marked = math.log(math.cosh(1 / SPEC.dino.student_temperature))
    return (float(found.losses[level]) - math.log(2)) / marked


@pytest.mark.parametrize("level", ["pixel", "object", "image"])
def test_every_pair_of_views_counts_the_same(level):
    """Two global pairs of 16 cells and six local ones of 4, all on the same ground."""
    student, teacher = scene(batch=1, holes=0.0)
    ground = torch.tensor([[10.0, 0, 0], [0, 10, 0]], dtype=torch.float64)
    marked = {}
    for size, views in student.items():
        maps = torch.full_like(views.maps, float(size == "local"))
        marked[size] = views._replace(maps=maps, affine=ground.expand_as(views.affine))
    teacher = teacher._replace(affine=marked["global"].affine)
    assert share_of_marked(marked, teacher, level) == pytest.approx(6 / 8, rel=1e-4)


@pytest.mark.parametrize("level", ["pixel", "object", "image"])
def test_a_series_counts_as_much_as_a_single_frame(level):
    """A sample keeps its share of the loss if half of its frames are absent."""
    student, teacher = scene(batch=2, holes=0.0)
    teacher = teacher._replace(valid=torch.ones_like(teacher.valid))
    shares = []
    for frames in (1, FRAMES):
        marked = {}
        for size, views in student.items():
            valid = views.valid.clone()
            valid[0, :, frames:] = False
            maps = torch.zeros_like(views.maps)
            maps[0] = 1.0
            marked[size] = views._replace(maps=maps, valid=valid)
        shares.append(share_of_marked(marked, teacher, level))
    assert 0.2 < shares[0] == pytest.approx(shares[1], rel=1e-4)


def test_a_view_does_not_meet_itself():
    assert partner_views(2, 2, same=True).tolist() == [[False, True], [True, False]]
    assert partner_views(3, 2, same=False).all()
    student, teacher = scene()
    only = {"global": ViewMaps(*(x[:, :1] for x in student["global"]))}
    found = run(with_gradients(only), ViewMaps(*(x[:, :1] for x in teacher)))
    assert all(loss == 0 for loss in found.losses.values())


def test_masked_cells_have_no_influence():
    student, teacher = scene(holes=0.3)
    expected = run(student, teacher)

    def spoil(views):
        return views._replace(maps=views.maps.where(views.valid[..., None], torch.nan))

    spoilt = with_gradients({size: spoil(views) for size, views in student.items()})
    found = run(spoilt, spoil(teacher))
    for level, loss in expected.losses.items():
        assert torch.equal(found.losses[level], loss)
    found.total.backward()
    for views in spoilt.values():
        assert views.maps.grad.isfinite().all() and (views.maps.grad[~views.valid] == 0).all()
        assert (views.maps.grad != 0).any()


def test_nothing_valid_gives_zero_with_zero_gradients():
    student, teacher = scene()
    student = {
        size: views._replace(
            valid=torch.zeros_like(views.valid), maps=torch.full_like(views.maps, math.nan)
        )
        for size, views in student.items()
    }
    student = with_gradients(student)
    weights = {name: w.requires_grad_() for name, w in linear_heads(5).items()}
    found = run(
        student, teacher._replace(valid=torch.zeros_like(teacher.valid)), student_weights=weights
    )
    found.total.backward()
    assert all(loss == 0 for loss in found.losses.values())
    for tensor in [views.maps for views in student.values()] + list(weights.values()):
        assert (tensor.grad == 0).all()
    assert all(figure == 0 for statistics in found.statistics.values() for figure in statistics)


def reorder(views, order):
    return ViewMaps(*(x[order] for x in views))


def test_the_order_of_the_batch_does_not_matter():
    student, teacher = scene(batch=4)
    order = torch.tensor([2, 0, 3, 1])
    expected = run(student, teacher)
    found = run(
        {size: reorder(views, order) for size, views in student.items()}, reorder(teacher, order)
    )
    for level, loss in expected.losses.items():
        torch.testing.assert_close(found.losses[level], loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cuts", [[2, 2], [1, 3]])
def test_ranks_average_to_the_whole(cuts):
    """Values, gradients and figures; the first rank has nothing valid of the second sample."""
    student, teacher = scene(batch=4)
    student["global"].valid[0], student["local"].valid[0] = False, False
    alone = with_gradients(student)
    expected = run(alone, teacher)
    expected.total.backward()
    parts = [torch.arange(4)[start : start + n] for start, n in zip(np.cumsum([0, *cuts]), cuts)]

    def work(rank, reducer):
        own = with_gradients({size: reorder(views, parts[rank]) for size, views in student.items()})
        found = run(own, reorder(teacher, parts[rank]), reducer)
        found.total.backward()
        return found, {size: views.maps.grad / reducer.world_size for size, views in own.items()}

    ranks = run_ranks(len(cuts), work)
    assert 0.2 < expected.object_spread < 1
    for found, _ in ranks:
        torch.testing.assert_close(found.object_spread, expected.object_spread)
    for level in expected.losses:
        mean = sum(found.losses[level] for found, _ in ranks) / len(cuts)
        torch.testing.assert_close(mean, expected.losses[level], rtol=1e-4, atol=1e-6)
        for found, _ in ranks:
            np.testing.assert_allclose(
                found.statistics[level], expected.statistics[level], rtol=1e-4, atol=1e-6
            )
    for size, views in alone.items():
        torch.testing.assert_close(
            torch.cat([grads[size] for _, grads in ranks]), views.maps.grad, rtol=1e-3, atol=1e-6
        )


def test_running_mean_centring_gives_the_next_centres():
    student, teacher = scene()
    centres = {level: Centre(PROTOTYPES) for level in ("pixel", "object", "image")}
    found = run(student, teacher, centres=centres)
    pooled = torch.stack(
        [
            teacher.maps[b, t, f][teacher.valid[b, t, f]].mean(0)
            for b, t, f in np.ndindex(*teacher.maps.shape[:3])
        ]
    )
    torch.testing.assert_close(
        found.centres["image"], (pooled @ linear_heads(6)["image"].T).mean(0)
    )
    assert set(found.centres) == set(centres) and all(
        (centre.value == 0).all() for centre in centres.values()
    )
    centres["pixel"].update(50 * torch.eye(PROTOTYPES)[0])
    changed = run(student, teacher, centres=centres)
    assert (
        changed.losses["pixel"] != found.losses["pixel"]
        and changed.losses["image"] == found.losses["image"]
    )
    assert run(student, teacher).centres == {}
