"""The teacher's targets: their statistics at both extremes, and input that does not fit.

Values are tested together with the loss, in ``test_head_loss.py``.
"""

import math

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.pretraining.losses.dino import Centre, DinoSpec
from models.pretraining.losses.targets import head_targets
from models.reducer import Reducer

SPEC = DinoSpec(student_temperature=0.1, teacher_temperature=0.04, iterations=3)


def test_statistics_of_a_collapsed_and_a_silent_teacher():
    prototypes = 5 * torch.eye(3)
    centre = Centre(3)

    def statistics(features):
        mask = torch.ones(6, dtype=torch.bool)
        targets = head_targets(
            features, prototypes, mask=mask, spec=SPEC, reducer=Reducer(), centre=centre
        )
        return targets.statistics

    collapsed = statistics(torch.eye(3)[:1].expand(6, 3))
    np.testing.assert_allclose(collapsed, (0, 0, 1 / 3, 6), atol=1e-6)
    silent = statistics(torch.zeros(6, 3))
    np.testing.assert_allclose(silent[:2], math.log(3), rtol=1e-6)
    assert (centre.value == 0).all()  # read, not moved


def test_few_rows_have_targets_near_uniform():
    """N rows share K prototypes evenly, so a row's entropy is at least log(K / N); one row's target
    is exactly uniform, however clear the teacher is."""
    prototypes = torch.nn.functional.normalize(
        torch.randn(256, 16, generator=torch.Generator().manual_seed(0)), dim=1
    )
    spec = DinoSpec(teacher_temperature=0.01, iterations=50)
    for rows in (1, 2, 8, 64):
        mask = torch.ones(rows, dtype=torch.bool)
        found = head_targets(
            prototypes[:rows], prototypes, mask=mask, spec=spec, reducer=Reducer()
        ).statistics
        assert found.rows == rows
        assert found.entropy >= math.log(256 / rows) - 1e-3
        if rows == 1:
            assert found.entropy == pytest.approx(math.log(256), abs=1e-4)


def test_what_does_not_fit_is_refused():
    features = torch.eye(4)
    prototypes = torch.eye(4)
    mask = torch.ones(4, dtype=torch.bool)

    def refused(message, features=features, mask=mask, spec=SPEC):
        with pytest.raises(ModelError, match=message):
            head_targets(features, prototypes, mask=mask, spec=spec, reducer=Reducer())

    refused(r"features \(N, D\)", features=features[:, 1:])
    refused("expected float32", features=features.double())
    refused("mask of shape", mask=mask[1:])
    refused("teacher temperature > 0", spec=DinoSpec(teacher_temperature=0.0))
    refused("iterations >= 1", spec=DinoSpec(iterations=0))
