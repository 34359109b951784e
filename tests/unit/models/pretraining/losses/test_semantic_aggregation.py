"""QSACL against its formula in float64, with masks, ranks and gradients."""

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.pretraining.losses.dino import Centre, DinoSpec
from models.pretraining.losses.semantic_aggregation import ViewQueries, semantic_aggregation
from models.reducer import Reducer
from tests.unit.formulas import loss_by_loops, textbook
from tests.unit.ranks import run_ranks

SPEC = DinoSpec(student_temperature=0.2, teacher_temperature=0.3, iterations=3)
QUERIES, WIDTH, PROTOTYPES = 3, 4, 5
VIEWS = {"global": 2, "local": 3}


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(batch=2):
    student = {
        size: draw(batch, views, QUERIES, WIDTH, seed=i)
        for i, (size, views) in enumerate(VIEWS.items())
    }
    teacher = {
        size: draw(batch, views, QUERIES, WIDTH, seed=i + 5)
        for i, (size, views) in enumerate(VIEWS.items())
    }
    valid = {size: torch.ones(batch, views, dtype=torch.bool) for size, views in VIEWS.items()}
    return student, teacher, valid


HEAD, OTHER = draw(PROTOTYPES, WIDTH, seed=20) / 2, draw(PROTOTYPES, WIDTH, seed=21) / 2


def run(student, teacher, valid, reducer=None, head=HEAD, **options):
    return semantic_aggregation(
        {size: ViewQueries(x, valid[size]) for size, x in student.items()},
        {size: ViewQueries(x, valid[size]) for size, x in teacher.items()},
        student_head=lambda x: (x, head),
        teacher_head=lambda x: (x, OTHER),
        spec=SPEC,
        reducer=reducer or Reducer(),
        **options,
    )


def terms(student, teacher, valid, head):
    """All CL(z_i^a, z_i^b') by (sample, a, b, i), a and b = (size, view) of different sizes; valid
    views only."""
    present = [
        (b, size, v)
        for size in teacher
        for b, v in np.ndindex(*valid[size].shape)
        if valid[size][b, v]
    ]
    rows = [(b, size, v, i) for b, size, v in present for i in range(QUERIES)]
    logits = (
        np.stack([teacher[size][b, v, i].double().numpy() for b, size, v, i in rows])
        @ OTHER.double().numpy().T
    )
    targets = dict(zip(rows, torch.tensor(textbook(logits, 0.3, 3))))
    return {
        (b, (size, v), (other, w), i): loss_by_loops(
            head @ student[size][b, v, i], targets[b, other, w, i], 0.2
        )
        for b, size, v in present
        for c, other, w in present
        if b == c and size != other
        for i in range(QUERIES)
    }


def test_equals_the_formula_with_gradients():
    student, teacher, valid = scene()
    exact = {size: x.double().requires_grad_() for size, x in student.items()}
    head = HEAD.double().requires_grad_()
    found_terms, losses = terms(exact, teacher, valid, head), []
    for b, g, v in np.ndindex(2, 2, 3):  # the formula for one pair of views of one sample
        one, other = ("global", g), ("local", v)
        losses.append(
            sum(
                found_terms[b, one, other, i] + found_terms[b, other, one, i]
                for i in range(QUERIES)
            )
            / (2 * QUERIES)
        )
    expected = sum(losses) / len(losses)
    student = {size: x.requires_grad_() for size, x in student.items()}
    own = HEAD.clone().requires_grad_()
    found = run(student, teacher, valid, head=own)
    torch.testing.assert_close(found.loss.double(), expected, rtol=1e-5, atol=0)
    found.loss.backward()
    expected.backward()
    for size in VIEWS:
        torch.testing.assert_close(
            student[size].grad, exact[size].grad.float(), rtol=1e-3, atol=1e-6
        )
    torch.testing.assert_close(own.grad, head.grad.float(), rtol=1e-3, atol=1e-6)


def masked_scene(batch=2):
    student, teacher, valid = scene(batch)
    valid["global"][0, 1] = valid["local"][0, 2] = valid["local"][1, 0] = False
    return student, teacher, valid


def test_views_that_hold_nothing_take_no_part():
    student, teacher, valid = masked_scene()
    found_terms = terms({s: x.double() for s, x in student.items()}, teacher, valid, HEAD.double())
    expected = sum(found_terms.values()) / len(found_terms)

    def spoil(queries):
        return {s: x.where(valid[s][..., None, None], torch.nan) for s, x in queries.items()}

    student = {s: x.requires_grad_() for s, x in spoil(student).items()}
    head = HEAD.clone().requires_grad_()
    found = run(student, spoil(teacher), valid, head=head)
    torch.testing.assert_close(found.loss.double(), expected, rtol=1e-5, atol=0)
    found.loss.backward()
    assert head.grad.isfinite().all()
    for size, x in student.items():
        assert (x.grad[~valid[size]] == 0).all() and (x.grad[valid[size]] != 0).any()


@pytest.mark.parametrize("cuts", [[2, 2], [1, 3]])
def test_ranks_average_to_the_whole(cuts):
    student, teacher, valid = masked_scene(batch=4)
    expected = run(student, teacher, valid)

    def work(rank, reducer):
        def part(tensors):
            return {size: x.split(cuts)[rank] for size, x in tensors.items()}

        return run(part(student), part(teacher), part(valid), reducer)

    found = run_ranks(2, work)
    torch.testing.assert_close(sum(one.loss for one in found) / 2, expected.loss, rtol=1e-5, atol=0)
    for one in found:
        torch.testing.assert_close(torch.stack(one.statistics), torch.stack(expected.statistics))


def test_nothing_valid_gives_zero_with_zero_gradients():
    student, teacher, valid = scene()
    student = {size: x.requires_grad_() for size, x in student.items()}
    found = run(student, teacher, {size: torch.zeros_like(mask) for size, mask in valid.items()})
    found.loss.backward()
    assert found.loss == 0 and all((x.grad == 0).all() for x in student.values())


def test_one_sided_pairs_need_the_teacher_on_one_size_only():
    student, teacher, valid = scene()
    found = run(student, {"global": teacher["global"]}, valid, pairs=(("local", "global"),))
    rows = teacher["global"].flatten(0, 2).double() @ OTHER.double().T
    targets = torch.tensor(textbook(rows, 0.3, 3)).view(2, 2, QUERIES, PROTOTYPES)
    expected = np.mean(
        [
            float(
                loss_by_loops(
                    HEAD.double() @ student["local"][b, v, i].double(), targets[b, g, i], 0.2
                )
            )
            for b, v, g, i in np.ndindex(2, 3, 2, QUERIES)
        ]
    )
    assert float(found.loss) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(
        ModelError, match=r"expected queries of the teacher for \['local'\], found \['global'\]"
    ):
        run(student, {"global": teacher["global"]}, valid)


def test_running_mean_centring_gives_the_next_centre():
    student, teacher, valid = masked_scene()
    centre = Centre(PROTOTYPES)
    found = run(student, teacher, valid, centre=centre)
    rows = torch.cat([teacher[size][valid[size]].flatten(0, 1) for size in VIEWS]) @ OTHER.T
    torch.testing.assert_close(found.centre, rows.mean(0))
    assert (centre.value == 0).all() and run(student, teacher, valid).centre is None
