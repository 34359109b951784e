"""Who owns the first gradient: the paper's structure at small width, with blank patches."""

import math

import pytest
import torch
from torch import nn

from engine.config.load import load
from engine.training.models import is_no_decay
from engine.training.objective import to_views
from models.backbone.swin_v2 import BlockNorm
from models.backbone.tokenizer import Tokenizer
from tests.paths import ROOT
from tests.unit.batches import whole_batch
from tests.unit.objectives import objective_of

WIDTHS = [32, 64, 128, 256]
SMALL = [
    f"skysense.model.widths={WIDTHS}",
    "skysense.model.head_dim=16",
    "skysense.model.fusion.width=128",
    "skysense.model.fusion.heads=4",
    "skysense.model.context.regions=4",
    "skysense.model.context.width=64",
    "skysense.model.head.hidden=512",
    "skysense.model.head.prototypes=256",
    "skysense.model.moe.implementation=grouped",
    "skysense.ep_size=1",
    "train_batch_size=1",
]
BLANK_SHARE = 3 / 16  # of the rows of the first global view


@pytest.fixture(scope="module")
def first_step():
    """One backward pass: the student, its tokenizers' calls, the shortest input of each norm."""
    torch.manual_seed(0)
    settings = load(ROOT / "ds_configs/paper_128gpu.json", SMALL, world_size=1).settings
    batch = whole_batch(settings)
    for views in batch.views.values():
        views.labels.random_(0, 16)
    for valid in batch.views["global"].valid.values():
        valid[:, 0, :, : round(valid.shape[-2] * BLANK_SHARE)] = False
    text = torch.randn(16, settings.model.text_width)  # K D
    objective = objective_of(settings, nn.functional.normalize(text, dim=-1))
    calls = []
    shortest = {}

    def keep(tokenizer: Tokenizer, inputs: tuple, tokens: torch.Tensor) -> None:
        tokens.retain_grad()
        calls.append((tokenizer.patch, inputs[0], tokens))

    def measure(name: str):
        def note(norm: nn.LayerNorm, inputs: tuple) -> None:
            spread = inputs[0].detach().std(dim=-1).min()
            shortest[name] = min(float(spread), shortest.get(name, math.inf))

        return note

    for tokenizer in objective.student.trunk.tokenizers.values():
        tokenizer.register_forward_hook(keep)
    for name, module in objective.student.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(measure(name))
    views = to_views(batch, torch.device("cpu"))
    with torch.no_grad():
        targets = objective.teacher(views)
    losses = objective(objective.student(views), targets, batch, temperature=0.05)
    losses.total.backward()
    return objective.student, calls, shortest


def test_the_first_gradient_is_below_100(first_step):
    student, _, _ = first_step
    squares = [float(p.grad.square().sum()) for p in student.parameters() if p.grad is not None]
    assert math.sqrt(sum(squares)) < 100


def test_blank_patches_hold_less_than_a_hundredth_of_it(first_step):
    _, calls, _ = first_step
    in_blank = 0.0
    in_all = 0.0
    blanks = 0
    for patch, images, tokens in calls:
        patches = images.unfold(2, patch, patch).unfold(3, patch, patch)  # images C h w p p
        blank = (patches == 0).all(-1).all(-1).all(1).flatten(1)  # images hw
        squares = tokens.grad.square().sum(-1)  # images hw
        in_blank += float(squares[blank].sum())
        in_all += float(squares.sum())
        blanks += int(blank.sum())
    assert blanks > 1000
    assert in_blank < 0.01 * in_all


def test_no_layer_norm_meets_a_zero_vector(first_step):
    student, _, shortest = first_step
    assert len(shortest) > 80
    for name, spread in shortest.items():
        least = 1e-3  # near the square root of the norms' epsilon, also at this small width
        if isinstance(student.get_submodule(name), BlockNorm):
            least = 1e-5  # behind a whole branch of small weights; its own weight starts at zero
        assert spread > least, name


def test_decay_spares_the_network_of_the_position_bias(first_step):
    student, _, _ = first_step
    spared = {
        name for name, p in student.named_parameters() if is_no_decay(name, p, spec=student.spec)
    }
    networks = {name for name, _ in student.named_parameters() if ".bias_net." in name}
    assert networks and networks <= spared
    assert "trunk.backbone.stages.0.blocks.0.attention.qkv.weight" not in spared
