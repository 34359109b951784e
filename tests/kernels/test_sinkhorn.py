"""The Sinkhorn-Knopp kernels against the formula in float64: whole problems, and passes with sums
over ranks."""

import threading

import pytest
import torch

pytest.importorskip("triton")

import models.kernels.sinkhorn as module
from models.fusion.sinkhorn import sinkhorn, sinkhorn_many
from models.kernels.dispatch import active
from models.kernels.sinkhorn import assign
from models.pretraining.losses import row_blocks
from models.pretraining.losses.multi_granularity import ViewMaps, multi_granularity
from models.reducer import Reducer
from tests.kernels.turns import Turns
from tests.unit.formulas import textbook
from tests.unit.models.pretraining.losses import test_multi_granularity as granularity
from tests.unit.ranks import run_ranks

# The interpreter computes in NumPy, which warns of what a later where() leaves out.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
WAYS = {"whole": None, "passes": lambda sums: sums}


@pytest.fixture(params=WAYS)
def way(request):
    """What ``column_sums`` is: None takes the kernel of whole problems."""
    return WAYS[request.param]


def draw(*shape, scale=1.0, seed=0):
    """Scores in [-scale, scale] and a mask with at least one valid row a problem."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape[:-1], generator=generator) < 0.7
    mask[..., 0] = True
    return scale * (2 * torch.rand(shape, generator=generator) - 1), mask


def formula(scores, mask, epsilon, iterations):
    """float64, logarithms; rows that are masked are left out by a weight of zero."""
    mask = mask[..., None]
    log = (scores.double() / epsilon).where(mask, -torch.inf)
    for _ in range(iterations):
        log = (log - log.logsumexp(dim=-2, keepdim=True)).where(mask, -torch.inf)
        log = (log - log.logsumexp(dim=-1, keepdim=True)).where(mask, -torch.inf)
    return log.exp()


def check(found, scores, mask, epsilon, iterations, atol=1e-6):
    """The scores, in units of epsilon, are rounded to float32: what the formula may differ by."""
    assert found.dtype == torch.float32 and found.shape == scores.shape and found.is_contiguous()
    expected = formula(scores, mask, epsilon, iterations)
    torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=atol)
    assert (found[~mask] == 0).all()


def test_the_formula_is_the_textbook():
    scores, _ = draw(12, 7)
    found = formula(scores, torch.ones(12, dtype=torch.bool), 0.05, 3)
    torch.testing.assert_close(found, torch.from_numpy(textbook(scores, 0.05, 3)))


@pytest.mark.parametrize("shape", [(12, 7), (1, 1), (1, 5), (9, 1), (2, 1, 17, 33)])
def test_values(way, device, shape):
    scores, mask = (x.to(device) for x in draw(*shape))
    check(assign(scores, mask, epsilon=0.05, iterations=3, column_sums=way), scores, mask, 0.05, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types(way, device, dtype):
    scores, mask = (x.to(device) for x in draw(12, 20))
    scores = scores.to(dtype)
    check(assign(scores, mask, epsilon=0.05, iterations=3, column_sums=way), scores, mask, 0.05, 3)


@pytest.mark.parametrize("iterations, shape", [(1, (2, 12, 7)), (6, (24, 2)), (6, (2, 24))])
def test_iterations(way, device, iterations, shape):
    scores, mask = (x.to(device) for x in draw(*shape))
    check(
        assign(scores, mask, epsilon=0.1, iterations=iterations, column_sums=way),
        scores,
        mask,
        0.1,
        iterations,
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(24, 2), (2, 24)])
def test_many_iterations(device, shape):
    scores, mask = (x.to(device) for x in draw(*shape))
    check(assign(scores, mask, epsilon=0.1, iterations=60), scores, mask, 0.1, 60, atol=1e-5)


@pytest.mark.parametrize(
    "scale", [1.0, 1.09, 1.11, 3.0]
)  # the range of x is 40 scale: both sides of NARROW
def test_products_and_logarithms_agree(device, scale):
    scores, mask = (x.to(device) for x in draw(2, 33, 20, scale=scale))
    scores[:, 0, 0], scores[:, 0, 1] = scale, -scale
    scores[1] = (
        torch.ones(33, 20).tril().to(device) * 2 * scale - scale
    )  # scalings that vary as much as they can
    check(assign(scores, mask, epsilon=0.05, iterations=10), scores, mask, 0.05, 10)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_large_scores(way, device, scale):
    scores, mask = (x.to(device) for x in draw(2, 32, 6, scale=scale))
    found = assign(scores, mask, epsilon=0.05, iterations=3, column_sums=way)
    check(found, scores, mask, 0.05, 3, atol=4 * scale / 0.05 * 2**-24)
    torch.testing.assert_close(found.sum(dim=-1), mask.float())


def test_a_row_far_below_the_others_and_a_column_far_below_the_others(way, device):
    scores, mask = (x.to(device) for x in draw(12, 7))
    mask[:] = True
    scores[3] -= 1e3
    scores[:, 2] -= 1e3
    check(
        assign(scores, mask, epsilon=0.05, iterations=3, column_sums=way),
        scores,
        mask,
        0.05,
        3,
        atol=4e3 / 0.05 * 2**-24,
    )


@pytest.mark.parametrize("junk", [1e30, float("nan"), float("inf"), -float("inf")])
def test_masked_rows_change_nothing(way, device, junk):
    scores, mask = (x.to(device) for x in draw(3, 12, 7))
    mask[1] = False
    expected = assign(scores, mask, epsilon=0.1, iterations=2, column_sums=way)
    scores[~mask] = junk
    assert torch.equal(assign(scores, mask, epsilon=0.1, iterations=2, column_sums=way), expected)
    assert (expected[1] == 0).all()
    check(expected[::2].contiguous(), scores[::2].where(mask[::2, :, None], 0.0), mask[::2], 0.1, 2)


@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
def test_a_valid_row_that_is_not_finite_is_not_hidden(way, device, junk):
    scores, mask = (x.to(device) for x in draw(2, 12, 7))
    expected = assign(scores[:1], mask[:1], epsilon=0.1, iterations=3, column_sums=way)
    scores[1, 0, 4] = junk
    found = assign(scores, mask, epsilon=0.1, iterations=3, column_sums=way)
    assert found[1, 0].isnan().any()
    torch.testing.assert_close(found[:1], expected)  # and stays in its problem


def test_strides(way, device):
    scores, mask = (x.to(device) for x in draw(2, 2, 6, 4))
    views = [
        (scores.mT, mask[..., :4]),
        (scores[..., ::2, 1::3], mask[..., ::2]),
        (scores[:, 1, 1:, :3], mask[:, 1, 1:]),
        (scores[:1, 0].expand(2, -1, -1), mask[:1, 0].expand(2, -1)),
        (scores.transpose(0, 1), mask.transpose(0, 1)),
        (scores[0], torch.stack([mask[0], ~mask[0]], dim=-1)[..., 0]),
    ]
    for view, valid in views:
        assert not (view.is_contiguous() and valid.is_contiguous())
        expected = assign(
            view.contiguous(), valid.contiguous(), epsilon=0.1, iterations=2, column_sums=way
        )
        assert (
            torch.equal(assign(view, valid, epsilon=0.1, iterations=2, column_sums=way), expected)
            and (expected[valid] > 0).any()
        )


def test_spans_and_tiles(device, monkeypatch):
    monkeypatch.setattr(module, "SPAN", 16)
    for shape in (
        (40, 300),
        (2, 5000),
    ):  # three spans and two tiles of columns; two steps along a row
        scores, mask = (x.to(device) for x in draw(*shape))
        check(
            assign(scores, mask, epsilon=0.1, iterations=2, column_sums=WAYS["passes"]),
            scores,
            mask,
            0.1,
            2,
        )


def test_a_problem_that_does_not_fit_takes_passes(device, monkeypatch):
    scores, mask = (x.to(device) for x in draw(2, 24, 10))
    monkeypatch.setattr(module, "WHOLE", 32 * 16 - 1)
    expected = assign(scores, mask, epsilon=0.1, iterations=3, column_sums=WAYS["passes"])
    assert torch.equal(assign(scores, mask, epsilon=0.1, iterations=3), expected)


def test_a_program_takes_several_problems(device, monkeypatch):
    scores, mask = (x.to(device) for x in draw(5, 24, 10))
    expected = assign(scores, mask, epsilon=0.1, iterations=3)
    check(expected, scores, mask, 0.1, 3)
    monkeypatch.setattr(module, "WHOLE", 32 * 16)  # one program fits on a multiprocessor
    for programs in (1, 2, 4):  # with two and four, some have nothing to do in the last turn
        monkeypatch.setattr(module, "_multiprocessors", lambda _, programs=programs: programs)
        assert torch.equal(assign(scores, mask, epsilon=0.1, iterations=3), expected)


def test_no_rows_and_no_problems(way, device):
    for shape in ((2, 0, 7), (0, 12, 7), (0, 7), (3, 4, 0)):
        scores, mask = (
            torch.zeros(shape, device=device),
            torch.ones(shape[:-1], dtype=torch.bool, device=device),
        )
        assert assign(scores, mask, epsilon=0.1, iterations=3, column_sums=way).shape == shape


def test_runs_repeat_and_leave_the_scores_alone(way, device):
    scores, mask = (x.to(device) for x in draw(2, 9, 20))
    scores.requires_grad_()
    before = scores.detach().clone()
    first = assign(scores, mask, epsilon=0.05, iterations=3, column_sums=way)
    assert not first.requires_grad
    for _ in range(2):
        assert torch.equal(assign(scores, mask, epsilon=0.05, iterations=3, column_sums=way), first)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("cuts", [[6, 6], [0, 12], [3, 4, 5]])
def test_rows_spread_over_ranks(device, cuts):
    scores, mask = (x.to(device) for x in draw(12, 7))
    mask[: cuts[0]] &= cuts[0] != 3  # with three ranks, the first has no valid row
    parts, masks, turn = scores.split(cuts), mask.split(cuts), threading.Lock()

    def work(rank, reducer):
        with turn:
            return sinkhorn(
                parts[rank], masks[rank], epsilon=0.07, iterations=3, reducer=Turns(reducer, turn)
            )

    found = torch.cat(run_ranks(len(cuts), work))
    check(found, scores, mask, 0.07, 3)


def test_problems_may_be_parts_of_a_larger_one(device):
    scores, mask = (x.to(device) for x in draw(24, 7))

    def joined(sums):
        """Logarithms of the column sums of each part -> of both together."""
        return sums.logsumexp(dim=0, keepdim=True).expand_as(sums)

    parts, masks = scores.unflatten(0, (2, 12)), mask.unflatten(0, (2, 12))
    found = assign(parts, masks, epsilon=0.07, iterations=3, column_sums=joined)
    check(found.flatten(0, 1), scores, mask, 0.07, 3)


def test_the_losses_take_the_kernel(device, monkeypatch):
    scores, mask = (x.to(device) for x in draw(2, 12, 7))

    def both():
        return (
            sinkhorn_many(scores, mask, epsilon=0.1, iterations=3),
            sinkhorn(scores[0], mask[0], epsilon=0.1, iterations=3, reducer=Reducer()),
        )

    used = []
    monkeypatch.setattr(
        module, "assign", lambda *args, **more: used.append(args) or assign(*args, **more)
    )
    found = both()
    assert len(used) == 2 and "Triton" in active()["sinkhorn"]
    monkeypatch.setenv("SKYSENSE_KERNELS", "off")
    torch.testing.assert_close(found, both(), rtol=1e-4, atol=1e-6)
    assert len(used) == 2


def test_multi_granularity_is_the_same_with_and_without(device, monkeypatch):
    student, teacher = granularity.scene(batch=1)

    def move(views):
        return ViewMaps(*(x.to(device) for x in views))

    student = {size: move(views) for size, views in student.items()}
    teacher = move(teacher)
    heads = [
        {name: w.to(device) for name, w in granularity.linear_heads(seed).items()}
        for seed in (5, 6)
    ]
    used, results = [], {}
    monkeypatch.setattr(
        module, "assign", lambda *args, **more: used.append(args) or assign(*args, **more)
    )
    # Only this kernel, not that of the head loss.
    monkeypatch.setattr(row_blocks, "kernel_path", lambda *_, **__: False)
    for wish in ("on", "off"):
        monkeypatch.setenv("SKYSENSE_KERNELS", wish)
        weights = {name: w.clone().requires_grad_() for name, w in heads[0].items()}
        found = multi_granularity(
            student,
            teacher,
            student_heads=granularity.callables(weights),
            teacher_heads=granularity.callables(heads[1]),
            spec=granularity.SPEC,
            reducer=Reducer(),
        )
        found.total.backward()
        results[wish] = {
            **found.losses,
            **{f"gradient {name}": w.grad for name, w in weights.items()},
        }
        assert bool(used) == (wish == "on")
        used.clear()
    torch.testing.assert_close(results["on"], results["off"], rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "shape", [(2048, 256, 100), (2048, 16, 16), (512, 1024, 16), (3, 700, 1000), (8, 4096, 16)]
)
def test_real_sizes(device, shape):
    for dtype in (torch.float32, torch.bfloat16):
        scores, mask = (x.to(device) for x in draw(*shape, seed=shape[1]))
        scores = scores.to(dtype)
        found = assign(scores, mask, epsilon=0.05, iterations=3)
        check(found, scores, mask, 0.05, 3)
        assert all(
            torch.equal(assign(scores, mask, epsilon=0.05, iterations=3), found) for _ in range(5)
        )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_size_of_the_prototypes(device, dtype):
    scores, mask = (x.to(device) for x in draw(2051, 65536, seed=1))
    scores = scores.to(dtype)
    found = sinkhorn(scores, mask, epsilon=0.05, iterations=3, reducer=Reducer())
    check(found, scores, mask, 0.05, 3)
    assert all(
        torch.equal(sinkhorn(scores, mask, epsilon=0.05, iterations=3, reducer=Reducer()), found)
        for _ in range(5)
    )
