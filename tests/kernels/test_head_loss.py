"""The head loss's kernels against its PyTorch functions in float64, one by one and together."""

import threading

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from models.kernels import head_loss as kernels
from models.kernels.dispatch import active
from models.pretraining.losses import head_tiles
from models.pretraining.losses.dino import Centre, DinoSpec
from models.pretraining.losses.head_loss import Partners, head_loss
from models.pretraining.losses.targets import head_targets
from models.reducer import Reducer
from tests.kernels.turns import Turns
from tests.unit.ranks import run_ranks

# The interpreter computes in NumPy, which warns of what a later where() leaves out.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
SPEC = DinoSpec(student_temperature=0.1, teacher_temperature=0.04, iterations=3)


def draw(*shape, seed=0, size=1.0, device):
    """Numbers in [-size, size] float32."""
    return size * (2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1).to(
        device
    )


def some(count, device):
    """A mask (count,) without its first row and every fourth."""
    return torch.arange(count, device=device) % 4 > 0


def close(found, expected, tolerance=1e-5):
    """Relative to the largest, or to one; infinities must be equal, NaN is never close."""
    assert found.dtype == torch.float32 and found.shape == expected.shape
    size = expected.where(expected.isfinite(), 0.0).abs().max().clamp(min=1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * float(size))


def exact(*tensors):
    """float64 copies: the functions may use up what they are given."""
    return [x.double().clone() if x.is_floating_point() else x.clone() for x in tensors]


SIZES = [(1, 1), (3, 7), (16, 128), (17, 300), (20, 2049), (2, 9001)]


@pytest.mark.parametrize("depth", [1, 24, 256])
def test_products_of_halves_are_products_in_float32(depth, device):
    a, b = (
        draw(17, 2 * depth, device=device)[:, ::2],
        draw(33, depth, seed=1, device=device),
    )  # a: not contiguous
    found = kernels.product(kernels.left(a), kernels.right(b))
    close(found, a.double() @ b.double().T, 1e-5)
    assert not torch.equal(found, (a.bfloat16().float() @ b.bfloat16().float().T))


@pytest.mark.parametrize("rows,prototypes", SIZES)
@pytest.mark.parametrize("size,scale", [(1.0, 25.0), (1e4, 25.0), (0.0, 1.0)])
def test_add_columns(rows, prototypes, size, scale, device):
    logits, mask = draw(rows, prototypes, size=size, device=device), some(rows, device)
    sums = torch.full((prototypes,), -torch.inf, device=device)
    sums[::2] = draw(prototypes, seed=1, size=9.0, device=device)[::2]
    expected, given, mask = exact(sums, logits, mask)
    kernels.add_columns(sums, logits, scale=scale, mask=mask)
    head_tiles.add_columns(expected, given, scale=scale, mask=mask)
    close(sums, expected)


@pytest.mark.parametrize("rows,prototypes", SIZES)
@pytest.mark.parametrize("size", [1.0, 30.0, 0.0])
def test_normalise(rows, prototypes, size, device):
    logits, mask = draw(rows, prototypes, size=size, device=device), some(rows, device)
    columns, mass = (
        draw(prototypes, seed=1, size=3.0, device=device),
        draw(prototypes, seed=2, device=device).abs(),
    )
    expected_mass, given, exact_columns = exact(mass, logits, columns)
    sums, entropy, best = kernels.normalise(
        mass, logits, scale=25.0, columns=columns, mask=mask, figures=True
    )
    expected = head_tiles.normalise(
        expected_mass, given, scale=25.0, columns=exact_columns, mask=mask, figures=True
    )
    close(mass, expected_mass, 1e-4 if size > 1 else 1e-5)
    close(sums, expected[0])
    torch.testing.assert_close(entropy.double(), expected[1], rtol=1e-4, atol=1e-5 * max(1.0, size))
    assert torch.equal(best, expected[2])


def test_the_first_of_equal_ones_is_the_largest(device):
    logits = torch.zeros(2, 5000, device=device)
    logits[0, [70, 4000]] = 1.0
    best = kernels.normalise(
        torch.zeros(5000, device=device),
        logits,
        scale=1.0,
        columns=torch.zeros(5000, device=device),
        mask=torch.ones(2, dtype=torch.bool, device=device),
        figures=True,
    )[2]
    assert best.tolist() == [70, 0]


@pytest.mark.parametrize("rows,prototypes", SIZES)
@pytest.mark.parametrize("partners", [0, 1, 3])
def test_cross_entropy_and_its_gradient(rows, prototypes, partners, device):
    logits, teacher = (
        draw(rows, prototypes, device=device),
        draw(rows, partners, prototypes, seed=1, device=device),
    )
    columns = draw(prototypes, seed=2, size=3.0, device=device)
    offsets = -torch.logsumexp(25 * teacher + columns, dim=-1)  # N M
    offsets[::2, 1:] = -torch.inf
    offsets[1::3] = -torch.inf
    offsets = offsets.T.contiguous().T
    offsets -= torch.arange(partners, device=device) / 2  # pairs of several weights
    weight = offsets.add(torch.logsumexp(25 * teacher + columns, dim=-1)).exp().sum(dim=1)  # N
    exact_logits, exact_teacher, exact_columns, exact_offsets, exact_weight = exact(
        logits, teacher, columns, offsets, weight
    )
    scales = {"scale": 10.0, "teacher_scale": 25.0}
    scalings = {"columns": columns, "rows": offsets, "weight": weight}
    values, pulled = kernels.cross_entropy(
        logits.clone(), teacher.clone(), **scales, **scalings, gradient=True
    )
    expected = head_tiles.cross_entropy(
        exact_logits,
        exact_teacher,
        **scales,
        columns=exact_columns,
        rows=exact_offsets,
        weight=exact_weight,
        gradient=True,
    )
    close(values, expected[0])
    high, low, again = pulled.float()
    close(high + low, expected[1])
    assert torch.equal(high, again)
    alone, nothing = kernels.cross_entropy(logits, teacher, **scales, **scalings, gradient=False)
    assert torch.equal(alone, values) and nothing is None


@pytest.mark.parametrize("rows,prototypes,depth", [(1, 1, 1), (17, 300, 24), (5, 130, 256)])
def test_pull_back(rows, prototypes, depth, device):
    features, weights = (
        draw(rows, depth, device=device),
        draw(prototypes, depth, seed=1, device=device),
    )
    gradient, total = (
        draw(rows, prototypes, seed=2, device=device),
        draw(prototypes, depth, seed=3, device=device),
    )
    *given, expected_total = exact(gradient, features, weights, total)
    high = gradient.bfloat16()
    halves = torch.stack([high, (gradient - high).bfloat16(), high])
    found = kernels.pull_back(halves, kernels.left(features), kernels.right(weights), total=total)
    close(found, head_tiles.pull_back(*given, total=expected_total))
    close(total, expected_total)


def scene(rows, teachers, prototypes, partners, depth, device):
    """Student and teacher (features, prototypes), the teacher's mask and partners, some of them
    none."""
    student, teacher = [
        [
            F.normalize(draw(n, depth, seed=seed + i, device=device), dim=-1)
            for i, n in enumerate((count, prototypes))
        ]
        for seed, count in ((0, rows), (2, teachers))
    ]
    table = torch.randint(
        -1, teachers, (rows, partners), generator=torch.Generator().manual_seed(5)
    ).to(device)
    return [x.requires_grad_() for x in student], teacher, some(teachers, device), table


def run(student, teacher, mask, table, centre=None, reducer=None):
    targets = head_targets(
        *teacher, mask=mask, spec=SPEC, reducer=reducer or Reducer(), centre=centre
    )
    partners = table
    if not isinstance(table, Partners):
        partners = Partners.equal(table)
    loss = head_loss(
        *student, targets=targets, partners=partners, temperature=SPEC.student_temperature
    )
    return loss, torch.autograd.grad(loss, student), targets


def reference(monkeypatch, student, teacher, mask, table, centre=None):
    """In float64, which has no kernels."""
    with monkeypatch.context() as patch:
        patch.setenv("SKYSENSE_KERNELS", "off")
        return run(
            [x.detach().double().requires_grad_() for x in student],
            [x.double() for x in teacher],
            mask,
            table,
            centre,
        )


def check(found, expected, tolerance=1e-4):
    """Values, gradients, statistics."""
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-6)
    for a, b in zip(found[1], expected[1]):
        assert a.isfinite().all() and torch.linalg.norm(
            a.double() - b
        ) <= tolerance * torch.linalg.norm(b)
    torch.testing.assert_close(
        torch.stack(found[2].statistics).double(),
        torch.stack(expected[2].statistics),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "rows,teachers,prototypes,partners,depth", [(13, 9, 300, 2, 24), (5, 20, 1025, 1, 256)]
)
@pytest.mark.parametrize("centred", [False, True])
def test_loss_and_gradients(
    rows, teachers, prototypes, partners, depth, centred, device, monkeypatch
):
    monkeypatch.setattr(kernels, "BLOCK", 4 * prototypes)  # several blocks, the last one smaller
    *models, table = scene(rows, teachers, prototypes, partners, depth, device)
    weights = 0.1 + draw(rows, partners, seed=6, device=device).abs()
    given = (*models, Partners(table, weights))
    centre = Centre(prototypes).to(device) if centred else None
    if centred:
        centre.update(draw(prototypes, seed=7, device=device))
    found = run(*given, centre)
    assert "Triton" in active()["head_loss"]
    check(found, reference(monkeypatch, *given, centre))
    again = run(*given, centre)
    assert torch.equal(again[0], found[0]) and all(
        torch.equal(a, b) for a, b in zip(again[1], found[1])
    )


def test_masked_rows_and_nothing_valid(device):
    student, teacher, mask, table = scene(6, 9, 300, 2, 24, device)
    table[1], table[0] = -1, 0  # row 1 has none, row 0 a masked one
    loss, gradients, targets = run(student, teacher, mask, table)
    spoilt = [student[0].detach().clone(), student[1]]
    spoilt[0][1] = torch.nan
    spoilt[0].requires_grad_()
    found = run(
        spoilt, [teacher[0].masked_fill(~mask[:, None], torch.nan), teacher[1]], mask, table
    )
    assert torch.equal(found[0], loss) and all(
        torch.equal(a, b) for a, b in zip(found[1], gradients)
    )
    assert (gradients[0][:2] == 0).all()
    loss, gradients, targets = run(student, teacher, torch.zeros_like(mask), table)
    assert loss == 0 and all((x == 0).all() for x in gradients) and not any(targets.statistics)


def test_two_ranks_equal_one(device):
    student, teacher, mask, _ = scene(9, 9, 300, 1, 24, device)
    own = torch.arange(9, device=device)[:, None]
    expected, turn = run(student, teacher, mask, own), threading.Lock()

    def work(rank, reducer):
        part = slice(0, 7) if rank == 0 else slice(7, 9)
        mine = [
            student[0].detach()[part].clone().requires_grad_(),
            student[1].detach().clone().requires_grad_(),
        ]
        with turn:
            return run(
                mine,
                [teacher[0][part], teacher[1]],
                mask[part],
                own[: part.stop - part.start],
                None,
                Turns(reducer, turn),
            )

    first, second = run_ranks(2, work)
    torch.testing.assert_close(first[0] + second[0], expected[0])
    torch.testing.assert_close(
        torch.cat([first[1][0], second[1][0]]), expected[1][0], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(first[1][1] + second[1][1], expected[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "rows,prototypes,partners", [(4096, 65536, 1), (1000, 65536, 2), (3000, 8191, 1)]
)
def test_real_sizes(rows, prototypes, partners, device, monkeypatch):
    given = scene(rows, rows, prototypes, partners, 256, device)
    found = run(*given)
    check(found, reference(monkeypatch, *given))
    for _ in range(3):
        again = run(*given)
        assert torch.equal(again[0], found[0]) and all(
            torch.equal(a, b) for a, b in zip(again[1], found[1])
        )


@pytest.mark.gpu
def test_peak_memory(device):
    rows, prototypes = 4096, 65536
    given = scene(rows, rows, prototypes, 1, 256, device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(*given)
    assert (
        torch.cuda.max_memory_allocated() - before < 0.4 * rows * prototypes * 4
    )  # one tensor of logits: 1 GiB
