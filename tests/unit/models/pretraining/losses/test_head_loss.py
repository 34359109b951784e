"""The head loss without logits against loops in float64, and against the loss with its logits."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from models.errors import ModelError
from models.fusion.sinkhorn import sinkhorn
from models.pretraining.losses import head_tiles
from models.pretraining.losses.dino import Centre, DinoSpec
from models.pretraining.losses.head_loss import (
    Partners,
    compact,
    head_loss,
    mean_loss,
    paired_rows,
)
from models.pretraining.losses.targets import head_targets
from models.reducer import Reducer
from tests.unit.formulas import loss_by_loops, statistics_by_loops, textbook
from tests.unit.ranks import run_ranks

SPEC = DinoSpec(student_temperature=0.1, teacher_temperature=0.04, iterations=3)
DEPTH = 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks and column parts, the last ones smaller."""
    monkeypatch.setattr(head_tiles, "BLOCK", 300)
    monkeypatch.setattr(head_tiles, "COLUMNS", 16)


def directions(count, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(
        torch.randn(count, DEPTH, generator=generator, dtype=torch.float64), dim=-1
    ).to(dtype)


def scene(rows, teachers, prototypes, partners=1, dtype=torch.float32):
    """Student and teacher (features, prototypes), the teacher's mask and partners (rows, M), a
    third of them none."""
    generator = torch.Generator().manual_seed(9)
    table = torch.randint(teachers, (rows, partners), generator=generator)
    table.masked_fill_(torch.rand(rows, partners, generator=generator) < 1 / 3, -1)
    mask = torch.rand(teachers, generator=generator) > 0.2
    student, teacher = [
        (directions(n, seed, dtype), directions(prototypes, seed + 1, dtype))
        for n, seed in ((rows, 0), (teachers, 2))
    ]
    return tuple(x.requires_grad_() for x in student), teacher, mask, table


def centre_of(prototypes, dtype=torch.float32):
    centre = Centre(prototypes).to(dtype)
    centre.update(torch.linspace(-0.5, 0.5, prototypes, dtype=dtype))
    return centre


def targets_of(teacher, mask, centre=None):
    """The teacher's distributions (N, K) and its logits."""
    logits = teacher[0] @ teacher[1].T
    if centre is None:
        return sinkhorn(
            logits,
            mask,
            epsilon=SPEC.teacher_temperature,
            iterations=SPEC.iterations,
            reducer=Reducer(),
        ), logits
    return ((logits - centre.value) / SPEC.teacher_temperature).softmax(dim=-1).where(
        mask[:, None], 0.0
    ), logits


def with_logits(student, targets, table):
    """The loss of explicit targets (N, K)."""
    padded = torch.cat([targets, torch.zeros_like(targets[:1])])  # index -1: zero
    logits = student[0] @ student[1].T
    return -(
        padded[table].sum(dim=1) * (logits / SPEC.student_temperature).log_softmax(dim=-1)
    ).sum()


def without(student, teacher, mask, table, centre=None, reducer=None, spec=SPEC, weights=None):
    partners = Partners.equal(table)
    if weights is not None:
        partners = Partners(table, weights)
    found = head_targets(
        *teacher, mask=mask, spec=spec, reducer=reducer or Reducer(), centre=centre
    )
    loss = head_loss(
        *student, targets=found, partners=partners, temperature=spec.student_temperature
    )
    return loss, found


@pytest.mark.parametrize(
    "rows,teachers,prototypes,partners",
    [(7, 7, 41, 1), (13, 9, 100, 2), (3, 30, 299, 3), (1, 1, 1, 1)],
)
@pytest.mark.parametrize("centred", [False, True])
def test_equals_the_loss_with_logits(rows, teachers, prototypes, partners, centred):
    given = scene(rows, teachers, prototypes, partners)
    centre = centre_of(prototypes) if centred else None
    student, teacher, mask, table = given
    targets, logits = targets_of(teacher, mask, centre)
    expected = with_logits(student, targets, table)
    found, implicit = without(*given, centre)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(found, student), torch.autograd.grad(expected, student)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    if mask.any():
        np.testing.assert_allclose(
            implicit.statistics, statistics_by_loops(targets[mask]), rtol=1e-4, atol=1e-5
        )
    if centred:
        torch.testing.assert_close(
            implicit.centre, logits[mask].mean(dim=0) if mask.any() else centre.value
        )
    else:
        assert implicit.centre is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_count_by_their_weights(dtype):
    student, teacher, mask, table = scene(13, 9, 41, 3, dtype)
    weights = torch.rand(13, 3, generator=torch.Generator().manual_seed(4)) * 3
    weights[2] = 0  # as if there were no pair
    found, _ = without(student, teacher, mask, table, weights=weights)
    targets, _ = targets_of(teacher, mask)
    expected = sum(
        w * loss_by_loops(student[0][n] @ student[1].T, targets[m], SPEC.student_temperature)
        for n, row in enumerate(table.tolist())
        for m, w in zip(row, weights[n].tolist())
        if m >= 0
    )
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0, check_dtype=False)
    for a, b in zip(torch.autograd.grad(found, student), torch.autograd.grad(expected, student)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("centred", [False, True])
def test_equals_loops_in_float64(centred):
    student, teacher, mask, table = scene(5, 8, 31, 2, torch.float64)
    centre = centre_of(31, torch.float64) if centred else None
    found, _ = without(student, teacher, mask, table, centre)
    logits = (teacher[0] @ teacher[1].T)[mask]
    targets = np.zeros((8, 31))
    if centred:
        shifted = (logits - centre.value) / SPEC.teacher_temperature
        targets[mask] = [[float(x.exp() / row.exp().sum()) for x in row] for row in shifted]
    else:
        targets[mask] = textbook(logits, SPEC.teacher_temperature, SPEC.iterations)
    expected = sum(
        loss_by_loops(student[0][n] @ student[1].T, targets[m], SPEC.student_temperature)
        for n, m in ((n, m) for n, row in enumerate(table.tolist()) for m in row if m >= 0)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for a, b in zip(
        torch.autograd.grad(3 * found, student), torch.autograd.grad(3 * expected, student)
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_gradients_by_differences():
    student, teacher, mask, table = scene(3, 4, 11, 2, torch.float64)
    targets = head_targets(*teacher, mask=mask, spec=SPEC, reducer=Reducer())
    pairs = Partners(table, torch.rand(3, 2, generator=torch.Generator().manual_seed(4)))

    def loss(features, prototypes):
        return head_loss(features, prototypes, targets=targets, partners=pairs, temperature=0.3)

    assert torch.autograd.gradcheck(loss, student)


@pytest.mark.parametrize("cuts", [[5, 8], [13, 0], [1, 12]])
@pytest.mark.parametrize("centred", [False, True])
def test_ranks_equal_the_whole(cuts, centred):
    student, teacher, mask, _ = scene(13, 13, 41)
    mask[:2], own = False, torch.arange(13)[:, None]
    centre = centre_of(41) if centred else None
    expected, whole = without(student, teacher, mask, own, centre)
    gradients = torch.autograd.grad(expected, student)

    def work(rank, reducer):
        start = sum(cuts[:rank])
        part = slice(start, start + cuts[rank])
        mine = tuple(x.detach().clone().requires_grad_() for x in (student[0][part], student[1]))
        loss, found = without(
            mine, (teacher[0][part], teacher[1]), mask[part], own[: cuts[rank]], centre, reducer
        )
        return loss.detach(), torch.autograd.grad(loss, mine), found

    ranks = run_ranks(2, work)
    torch.testing.assert_close(sum(loss for loss, _, _ in ranks), expected.detach())
    torch.testing.assert_close(torch.cat([x for _, (x, _), _ in ranks]), gradients[0])
    torch.testing.assert_close(sum(w for _, (_, w), _ in ranks), gradients[1])
    for _, _, found in ranks:
        torch.testing.assert_close(torch.stack(found.statistics), torch.stack(whole.statistics))
        if centred:
            torch.testing.assert_close(found.centre, whole.centre)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_masked_rows_and_rows_without_partners_change_nothing(junk):
    student, teacher, mask, table = scene(13, 9, 41, 2)
    table[::5] = -1
    alone = (table < 0).all(dim=1)
    assert not mask.all()
    expected, before = without(student, teacher, mask, table)
    gradients = torch.autograd.grad(expected, student)
    spoilt = student[0].detach().masked_fill(alone[:, None], junk).requires_grad_()
    loud = teacher[0].masked_fill(~mask[:, None], junk), teacher[1]
    found, after = without((spoilt, student[1]), loud, mask, table)
    assert torch.equal(found, expected) and torch.equal(
        torch.stack(after.statistics), torch.stack(before.statistics)
    )
    for a, b in zip(torch.autograd.grad(found, (spoilt, student[1])), gradients):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rows,teachers", [(5, 4), (5, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize("centred", [False, True])
def test_nothing_valid_gives_zero_with_zero_gradients(rows, teachers, centred):
    student = tuple(x.requires_grad_() for x in (directions(rows, 0), directions(41, 1)))
    table = torch.zeros(rows, 2, dtype=torch.long) if teachers else torch.full((rows, 2), -1)
    centre = centre_of(41) if centred else None
    nothing = torch.zeros(teachers, dtype=torch.bool)
    loss, found = without(
        student, (directions(teachers, 2), directions(41, 3)), nothing, table, centre
    )
    assert loss == 0 and all(figure == 0 for figure in found.statistics)
    assert all((x == 0).all() for x in torch.autograd.grad(loss, student))
    if centred:
        assert torch.equal(found.centre, centre.value)


@pytest.mark.parametrize("size,tolerance", [(1e-3, 1e-4), (30.0, 1e-4), (1e4, 3e-2)])
def test_extreme_scores(size, tolerance):
    """Exponents reach 25 times the size, and so does their rounding: hence the tolerances."""
    student, teacher, mask, table = scene(13, 9, 41, 2)
    given = (student[0].detach() * size).requires_grad_(), student[1]
    loud = teacher[0] * size, teacher[1]
    exact = tuple(x.detach().double().requires_grad_() for x in given)
    expected, _ = without(exact, tuple(x.double() for x in loud), mask, table)
    found, _ = without(given, loud, mask, table)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=0)
    for a, b in zip(torch.autograd.grad(found, given), torch.autograd.grad(expected, exact)):
        assert torch.linalg.norm(a.double() - b) < tolerance * torch.linalg.norm(b)


def test_views_meet_row_by_row():
    generator = torch.Generator().manual_seed(1)
    pairs = torch.tensor([[0, 1], [1, 0], [1, 1]], dtype=torch.bool)  # S t
    mask, present = (
        torch.rand(2, 3, 4, generator=generator) > 0.3,
        torch.rand(2, 2, 4, generator=generator) > 0.3,
    )
    student, teacher, _, _ = scene(mask.numel(), present.numel(), 41)
    table, weights = paired_rows(pairs, mask=mask, target_mask=present)
    found, _ = without(student, teacher, present.flatten(), table, weights=weights)
    logits = (student[0] @ student[1].T).unflatten(0, mask.shape)  # B S n K
    targets = targets_of(teacher, present.flatten())[0].unflatten(0, present.shape)  # B t n K
    met = [
        (b, s, t, n)
        for b, s, t, n in np.ndindex(2, 3, 2, 4)
        if pairs[s, t] and mask[b, s, n] and present[b, t, n]
    ]
    rows_of_pair = Counter((b, s, t) for b, s, t, _ in met)
    expected = sum(
        loss_by_loops(logits[b, s, n].double(), targets[b, t, n].double(), 0.1)
        / rows_of_pair[b, s, t]
        for b, s, t, n in met
    )
    assert int((table >= 0).sum()) == len(met) > 0
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(found, student), torch.autograd.grad(expected, student)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_compact_partners_are_the_same_partners():
    table = torch.tensor([[-1, 4, -1], [7, -1, 2], [-1, -1, -1], [-1, -1, 0]])
    weights = torch.arange(12.0).view(4, 3)
    rows, kept = compact(Partners(table, weights), 2)
    assert rows.shape == kept.shape == (4, 2)

    def pairs(rows, weights):
        return {(x, w) for x, w in zip(rows.tolist(), weights.tolist()) if x >= 0}

    for n in range(4):
        assert pairs(table[n], weights[n]) == pairs(rows[n], kept[n])


@pytest.mark.parametrize("world_size", [1, 2])
def test_parts_of_a_mean_loss_average_to_the_whole(world_size):
    """Parts of unlike M, on ranks of unlike N, against one table of all pairs."""
    student, teacher, mask, table = scene(12, 9, 41, 2)
    table[:4, 1] = -1
    weights = torch.rand(12, 2, generator=torch.Generator().manual_seed(4)) / 20
    total, _ = without(student, teacher, mask, table, weights=weights)
    cuts = {1: [slice(0, 4), slice(4, 12)], 2: [slice(0, 4), slice(4, 12)]}[world_size]
    targets = head_targets(*teacher, mask=mask, spec=SPEC, reducer=Reducer())

    def work(rank, reducer):
        mine = cuts if world_size == 1 else [cuts[rank]]
        return mean_loss(
            lambda x: (x, student[1]),
            [student[0].detach()[part] for part in mine],
            targets=targets,
            partners=[
                Partners(*(x[part, :1] if part.stop == 4 else x[part] for x in (table, weights)))
                for part in mine
            ],
            temperature=SPEC.student_temperature,
            reducer=reducer,
        )

    found = torch.stack(run_ranks(world_size, work)).mean()
    torch.testing.assert_close(found, total / weights[table >= 0].sum())


@pytest.mark.parametrize("centred", [False, True])
def test_an_invalid_number_shows(centred):
    student, teacher, mask, _ = scene(9, 9, 41)
    own, centre = torch.arange(9)[:, None], centre_of(41) if centred else None
    mask[4] = True
    for features in (student[0], teacher[0]):
        with torch.no_grad():
            before = features[4].clone()
            features[4] = torch.nan
            assert without(student, teacher, mask, own, centre)[0].isnan()
            features[4] = before
    assert without(student, teacher, mask, own, centre)[0].isfinite()


class Largest(TorchDispatchMode):
    """Watches the size of every tensor that an operation gives."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Runs it and looks at what came."""
        given = function(*args, **(kwargs or {}))
        for x in given if isinstance(given, (tuple, list)) else [given]:
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.numel())
        return given


@pytest.mark.parametrize("centred", [False, True])
def test_no_tensor_grows_with_rows_times_prototypes(centred, monkeypatch):
    monkeypatch.setattr(head_tiles, "BLOCK", 3000)
    for rows, prototypes in ((64, 300), (256, 300), (64, 1500)):
        student, teacher, mask, table = scene(rows, rows, prototypes)
        centre = centre_of(prototypes) if centred else None
        with Largest() as seen:
            without(student, teacher, mask, table, centre)[0].backward()
        assert (
            seen.numbers
            <= max(3000, max(rows, prototypes) * DEPTH + DEPTH)
            < rows * prototypes * 3 // 4
        )


def test_without_gradients_none_are_made():
    student, teacher, mask, table = scene(13, 9, 41)
    expected, targets = without(student, teacher, mask, table)
    pairs = {"targets": targets, "partners": Partners.equal(table), "temperature": 0.1}
    with torch.no_grad():
        assert torch.equal(head_loss(*student, **pairs), expected)
    fixed = head_loss(student[0], student[1].detach(), **pairs)
    fixed.backward()
    torch.testing.assert_close(student[0].grad, torch.autograd.grad(expected, student)[0])


def test_what_does_not_fit_is_refused():
    student, teacher, mask, table = scene(5, 4, 31)
    targets = head_targets(*teacher, mask=mask, spec=SPEC, reducer=Reducer())
    pairs = {"targets": targets, "partners": Partners.equal(table), "temperature": 0.1}
    with pytest.raises(ModelError, match="expected float32"):
        head_loss(student[0].bfloat16(), student[1].bfloat16(), **pairs)
    with pytest.raises(ModelError, match="as many prototypes"):
        head_loss(student[0], student[1][1:], **pairs)
    with pytest.raises(ModelError, match=r"partners of shape \(5, M\)"):
        head_loss(*student, **{**pairs, "partners": Partners.equal(table[1:])})
