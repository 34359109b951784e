"""Dense image-text alignment against the explicit mean over pixels in float64."""

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.pretraining.losses.image_text import (
    LabelledViews,
    check_labels,
    class_counts,
    image_text,
)
from models.reducer import Reducer
from tests.unit.ranks import run_ranks

CLASSES, WIDTH, TEMPERATURE = 4, 6, 0.3


def scene(batch=2, seed=0):
    """Views of two sizes; local labels on a raster that the cells do not divide evenly."""
    generator = torch.Generator().manual_seed(seed)
    views = {}
    for size, count, cells, pixels in (("global", 2, 3, 12), ("local", 3, 2, 5)):
        views[size] = LabelledViews(
            torch.randn(batch, count, cells, cells, WIDTH, generator=generator),
            torch.rand(batch, count, cells, cells, generator=generator) > 0.2,
            torch.randint(-1, CLASSES, (batch, count, pixels, pixels), generator=generator),
        )
    return views, torch.randn(CLASSES, WIDTH, generator=generator)


def by_pixels(views, text):
    """Equation 7 with the logarithm inside: mean over labelled pixels; float64, differentiable."""
    losses, text = [], text.double()
    text = text / text.square().sum(-1, keepdim=True).sqrt()
    for features, valid, labels in views.values():
        side, pixels = valid.shape[-1], labels.shape[-1]
        for b, v, y, x in np.ndindex(labels.shape):
            i, j = int((y + 0.5) * side / pixels), int((x + 0.5) * side / pixels)
            if labels[b, v, y, x] < 0 or not valid[b, v, i, j]:
                continue
            feature = features[b, v, i, j].double()
            scores = (text @ feature / feature.square().sum().sqrt() / TEMPERATURE).exp()
            losses.append(-(scores[labels[b, v, y, x]] / scores.sum()).log())
    return torch.stack(losses).mean()


def with_gradients(views, dtype=torch.float32):
    return {
        size: view._replace(features=view.features.to(dtype).requires_grad_())
        for size, view in views.items()
    }


def test_equals_the_mean_over_pixels_with_gradients():
    views, text = scene()
    exact, found = with_gradients(views, torch.float64), with_gradients(views)
    expected, loss = (
        by_pixels(exact, text),
        image_text(found, text, temperature=TEMPERATURE, reducer=Reducer()),
    )
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    expected.backward()
    loss.backward()
    for size in views:
        torch.testing.assert_close(
            found[size].features.grad, exact[size].features.grad.float(), rtol=1e-3, atol=1e-7
        )


def test_counts_equal_loops():
    labels = scene()[0]["local"].labels
    counts = class_counts(labels, side=2, classes=CLASSES)
    expected = torch.zeros(2, 3, 2, 2, CLASSES)
    for b, v, y, x in np.ndindex(labels.shape):
        if labels[b, v, y, x] >= 0:
            expected[b, v, int((y + 0.5) * 2 / 5), int((x + 0.5) * 2 / 5), labels[b, v, y, x]] += 1
    assert torch.equal(counts, expected)
    assert counts.sum() == (labels >= 0).sum()


def test_neither_norm_nor_masked_cells_nor_unlabelled_pixels_matter():
    views, text = scene()
    expected = image_text(views, text, temperature=TEMPERATURE, reducer=Reducer())
    torch.testing.assert_close(
        image_text(views, 7 * text, temperature=TEMPERATURE, reducer=Reducer()), expected
    )
    spoilt = {
        size: view._replace(features=(3 * view.features).where(view.valid[..., None], torch.nan))
        for size, view in views.items()
    }
    spoilt = with_gradients(spoilt)
    loss = image_text(spoilt, text, temperature=TEMPERATURE, reducer=Reducer())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(view.features.grad.isfinite().all() for view in spoilt.values())


def test_right_features_are_nearly_free_and_wrong_ones_dear():
    text = torch.eye(CLASSES)
    labels = torch.arange(CLASSES).view(1, 1, 2, 2)
    valid = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    right = text[labels]
    assert (
        image_text(
            {"global": LabelledViews(right, valid, labels)},
            text,
            temperature=0.07,
            reducer=Reducer(),
        )
        < 1e-5
    )
    wrong = LabelledViews(right.roll(1, dims=2), valid, labels)
    assert float(
        image_text({"global": wrong}, text, temperature=0.07, reducer=Reducer())
    ) == pytest.approx(1 / 0.07, rel=1e-3)


def test_nothing_labelled_gives_zero_with_zero_gradients():
    views, text = scene()
    views = {
        size: view._replace(labels=torch.full_like(view.labels, -1)) for size, view in views.items()
    }
    views = with_gradients(views)
    loss = image_text(views, text, temperature=TEMPERATURE, reducer=Reducer())
    loss.backward()
    assert loss == 0 and all((view.features.grad == 0).all() for view in views.values())


@pytest.mark.parametrize("cuts", [[2, 2], [1, 3]])
def test_ranks_average_to_the_whole(cuts):
    views, text = scene(batch=4)
    views["global"].labels[0] = -1
    split = {size: list(zip(*(x.split(cuts) for x in view))) for size, view in views.items()}

    def work(rank, reducer):
        return image_text(
            {size: LabelledViews(*parts[rank]) for size, parts in split.items()},
            text,
            temperature=TEMPERATURE,
            reducer=reducer,
        )

    found = sum(run_ranks(2, work)) / 2
    torch.testing.assert_close(
        found, image_text(views, text, temperature=TEMPERATURE, reducer=Reducer())
    )


def test_a_label_without_a_text_is_refused():
    labels = scene()[0]["local"].labels
    check_labels(labels, CLASSES)
    check_labels(labels[:0], CLASSES)
    labels[0, 0, 0, 0] = CLASSES
    with pytest.raises(ModelError, match="expected labels below 4, found 4"):
        check_labels(labels, CLASSES)
