"""A training step with every kernel against the same step in PyTorch: losses and gradients."""

import pytest
import torch

pytest.importorskip("triton")

from data.tiles.classes import NAMES
from engine.config.load import load
from engine.training.loss_terms import TOTAL
from engine.training.objective import Objective, to_views
from models.initialise import initialise
from models.kernels import dispatch
from models.pretraining.model import Pretraining
from models.reducer import Reducer
from tests.commands import TINY
from tests.unit.batches import whole_batch

OVERRIDES = [
    "skysense.ep_size=1",
    "skysense.model.depths=[2,1,1,1]",
    "skysense.model.moe.blocks=[4]",
    'skysense.data.frames={"hr":1,"ms":2,"sar":1}',
    "skysense.model.modalities.ms.frames=2",
    "skysense.model.modalities.sar.frames=1",
    "skysense.data.views.local_views=1",
    "skysense.model.head.prototypes=32",
    "skysense.model.moe.implementation=grouped",
]


@pytest.fixture
def step(device):
    """A function that gives the loss terms and the gradients of one step."""
    settings = load(TINY, OVERRIDES, world_size=1).settings
    student, teacher = (Pretraining(settings.model) for _ in range(2))
    for model in (student, teacher):
        initialise(model, settings.seed)
        model.to(device)
    teacher.eval().requires_grad_(False)
    torch.manual_seed(0)
    objective = Objective(
        settings.loss,
        student=student,
        teacher=teacher,
        text=torch.randn(len(NAMES), settings.model.text_width, device=device),
        reducer=Reducer(),
    )
    batch = whole_batch(settings)
    views = to_views(batch, device)

    def run():
        student.zero_grad()
        with torch.no_grad():
            targets = teacher(views)
        losses = objective(student(views), targets, batch, temperature=0.05)
        losses.total.backward()
        terms = {**losses.terms, TOTAL: losses.total}
        return (
            {name: float(value) for name, value in terms.items()},
            {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None},
        )

    return run


def test_losses_and_gradients_are_those_without_kernels(step, monkeypatch):
    found, gradients = step()
    used = {name for name, outcome in dispatch.active().items() if "Triton" in outcome}
    assert used >= set(dispatch.KERNELS)
    monkeypatch.setenv("SKYSENSE_KERNELS", "off")
    expected, exact = step()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert gradients.keys() == exact.keys()
    whole = torch.cat([x.flatten() for x in exact.values()])
    apart = torch.cat([(gradients[name] - x).flatten() for name, x in exact.items()])
    assert torch.linalg.norm(apart) < 1e-3 * torch.linalg.norm(whole)
    for name, x in exact.items():  # none is lost
        assert (gradients[name] != 0).any() == (x != 0).any(), name
