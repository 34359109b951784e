"""The three levels against equations 2-4 written as loops in float64, with gradients."""

import math

import numpy as np
import pytest
import torch

from models.pretraining.losses.dino import Centre, DinoSpec
from models.pretraining.losses.multi_granularity import (
    GranularitySpec,
    Matched,
    ViewMaps,
    multi_granularity,
    objects,
    partner_views,
)
from models.reducer import Reducer
from tests.unit.formulas import sample_by_loops, textbook
from tests.unit.ranks import run_ranks
from tests.unit.scenes import random_affines, random_maps

SPEC = GranularitySpec(DinoSpec(0.2, 0.3, 3), clusters=3, cluster_epsilon=0.2)
WIDTH, PROTOTYPES, FRAMES = 5, 6, 2


def linear_heads(seed):
    """Heads without hidden layers: their weights (K, D)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(PROTOTYPES, WIDTH, generator=generator) / 3 for name in ("image", "dense")
    }


def callables(weights):
    return {name: lambda x, w=w: (x.float(), w) for name, w in weights.items()}


def scene(batch=2, seed=0, holes=0.2):
    """Student views of two sizes and teacher views: ViewMaps by size, ViewMaps."""
    affine = {
        "global": random_affines(batch, 2, 10, 18, seed=seed),
        "local": random_affines(batch, 3, 4, 8, seed=seed + 1),
    }
    student = {
        "global": ViewMaps(*random_maps(batch, 2, FRAMES, 4, WIDTH, seed, holes), affine["global"]),
        "local": ViewMaps(
            *random_maps(batch, 3, FRAMES, 2, WIDTH, seed + 1, holes), affine["local"]
        ),
    }
    maps, _ = random_maps(batch, 2, FRAMES, 4, WIDTH, seed + 2)
    return student, ViewMaps(maps, student["global"].valid, affine["global"])


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


def pairs_of(student, teacher):
    """All (size, sample, student view, teacher view, frame); not a view with itself."""
    for size, views in student.items():
        for b, s, t, f in np.ndindex(*views.maps.shape[:2], teacher.maps.shape[1], FRAMES):
            if not (size == "global" and s == t):
                yield size, b, s, t, f


def matched_cells(student, teacher, size, b, s, t, f):
    """[(i, j, teacher feature)] of the valid matched cells of one pair and frame."""
    views, found = student[size], []
    side = views.maps.shape[3]
    for i, j in np.ndindex(side, side):
        xy = views.affine[b, s].numpy() @ np.array([(j + 0.5) / side, (i + 0.5) / side, 1])
        a = teacher.affine[b, t].numpy()
        u, v = np.linalg.solve(a[:, :2], xy - a[:, 2])
        if not (min(u, v) >= -1e-9 and max(u, v) <= 1 + 1e-9 and views.valid[b, s, f, i, j]):
            continue
        height, width = teacher.valid.shape[3:]
        total, weight = sample_by_loops(
            teacher.maps[b, t, f], teacher.valid[b, t, f], u * width, v * height
        )
        if weight > 0.5 - 1e-6:
            found.append((i, j, total / weight))
    return found


def mean_loss(rows, head, teacher_head):
    """Mean over pairs of views of their mean cross-entropy, for [(pair of views, student feature,
    teacher feature)]; targets from all teacher features by the textbook."""
    logits = np.stack([feature for _, _, feature in rows]) @ teacher_head.double().numpy().T
    targets = textbook(logits, SPEC.dino.teacher_temperature, SPEC.dino.iterations)
    return mean_to_targets([(pair, x, p) for (pair, x, _), p in zip(rows, targets)], head)


def mean_to_targets(rows, head):
    by_pair = {}
    for pair, feature, target in rows:
        logits = head.double() @ feature / SPEC.dino.student_temperature
        loss = -(torch.tensor(target) * (logits - logits.exp().sum().log())).sum()
        by_pair.setdefault(pair, []).append(loss)
    return sum(sum(losses) / len(losses) for losses in by_pair.values()) / len(by_pair)


def unit(x):
    norm = np.linalg.norm(x)
    return x / norm if norm else x


def cluster_by_loops(cells, side, clusters):
    """Shares (cells, C) of one pair and frame, columns summing to one; cells [(i, j, feature)]."""
    features = np.stack([x for _, _, x in cells])
    features = features - features.mean(0)
    directions = np.stack([unit(x) for x in features])
    rows = max(d for d in range(1, clusters + 1) if clusters % d == 0 and d * d <= clusters)
    columns = clusters // rows

    def block(k):
        i, j, _ = cells[k]
        return int((i + 0.5) * rows / side) * columns + int((j + 0.5) * columns / side)

    order = sorted(range(len(cells)), key=block)
    seeds = np.zeros((clusters, features.shape[1]))
    for rank, k in enumerate(order):
        seeds[rank * clusters // len(cells)] += features[k]
    seeds = np.stack([unit(x) for x in seeds])
    for _ in range(4):
        shares = textbook(directions @ seeds.T, SPEC.cluster_epsilon, SPEC.dino.iterations)
        seeds = np.stack([unit(x) for x in shares.T @ features])
    return shares / shares.sum(0)


def reference(student, teacher, heads):
    """Losses by level in float64 and the student's maps and heads they depend on."""
    maps = {size: views.maps.double().requires_grad_() for size, views in student.items()}
    heads = {name: w.double().requires_grad_() for name, w in heads.items()}
    other = linear_heads(6)
    pixels, things = [], []
    for size, b, s, t, f in pairs_of(student, teacher):
        cells, side = matched_cells(student, teacher, size, b, s, t, f), student[size].maps.shape[3]
        pair = size, b, s, t
        pixels += [(pair, maps[size][b, s, f, i, j], x) for i, j, x in cells]
        clusters = min(SPEC.clusters, max(1, side * side // 4))
        if len(cells) >= clusters:
            shares = cluster_by_loops(cells, side, clusters)
            for c in range(clusters):
                own = sum(
                    w * maps[size][b, s, f, i, j] for w, (i, j, _) in zip(shares[:, c], cells)
                )
                other_own = sum(w * x for w, (_, _, x) in zip(shares[:, c], cells))
                things.append((pair, own, other_own))
    pooled = {}  # teacher view -> mean of its valid cells
    for b, t, f in np.ndindex(*teacher.maps.shape[:3]):
        if teacher.valid[b, t, f].any():
            pooled[b, t, f] = teacher.maps[b, t, f][teacher.valid[b, t, f]].double().numpy().mean(0)
    targets = textbook(np.stack(list(pooled.values())) @ other["image"].double().numpy().T, 0.3, 3)
    targets = dict(zip(pooled, targets))
    images = [
        (
            (size, b, s, t),
            maps[size][b, s, f][student[size].valid[b, s, f]].mean(0),
            targets[b, t, f],
        )
        for size, b, s, t, f in pairs_of(student, teacher)
        if student[size].valid[b, s, f].any() and (b, t, f) in targets
    ]
    losses = {
        "pixel": mean_loss(pixels, heads["dense"], other["dense"]),
        "object": mean_loss(things, heads["dense"], other["dense"]),
        "image": mean_to_targets(images, heads["image"]),
    }
    return losses, maps, heads


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
