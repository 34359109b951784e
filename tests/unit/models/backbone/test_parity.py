"""The whole backbone against a composition of timm's Swin V2 blocks and mergings and torch's
encoder layers."""

import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import PatchMerging as TimmMerging
from torch import nn

from models.backbone.stages import Backbone
from models.packing import Group, Layout, pack
from models.spec import ModalitySpec, ModelSpec
from tests.unit.models.backbone.test_swin_v2 import timm_block
from tests.unit.models.backbone.test_transformer import torch_layer

IMAGES, SIDE, WINDOW = 2, 16, 4
SPEC = ModelSpec(
    modalities={
        "hr": ModalitySpec(3, 1, (True, True, True), (4, 2)),
        "ms": ModalitySpec(10, 4, (False, False, False), (3, 3)),
    },
    widths=(16, 32, 64, 128),
    depths=(2, 2, 3, 2),
    head_dim=8,
    window=WINDOW,
    prompts=(0, 0, 2, 3),
    moe=None,
)
LAYOUT = Layout((Group("hr", "global", IMAGES, SIDE, SIDE), Group("ms", "global", 3, 3, 3)))
PRESENT = [torch.ones(group.images, dtype=torch.bool) for group in LAYOUT.groups]
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def random_backbone() -> Backbone:
    backbone = Backbone(SPEC).double()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            parameter.normal_(std=0.1, generator=source)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return backbone


class Composition(nn.Module):
    """Others' modules with our weights; ``theirs``: our name -> their parameter."""

    def __init__(self, backbone: Backbone, modality: str, side: int):
        super().__init__()
        self.modality, self.halves = modality, SPEC.modalities[modality].merge[0]
        self.theirs, blocks, merges = {}, [], []
        for index, stage in enumerate(backbone.stages):
            for number, block in enumerate(stage.blocks):
                shift = WINDOW // 2 * (number % 2)
                other, names = (
                    timm_block(block, side, side, WINDOW, shift)
                    if index < 2
                    else torch_layer(block)
                )
                self.theirs |= {
                    f"stages.{index}.blocks.{number}.{name}": p for name, p in names.items()
                }
                blocks.append(other)
            if index < 3:
                side = (side + 1) // 2 if self.halves else side
                merges.append(self._merging(backbone, index))
        self.blocks, self.merges = nn.ModuleList(blocks), nn.ModuleList(merges)
        self.norm = nn.LayerNorm(SPEC.widths[-1]).double()
        self.norm.load_state_dict(backbone.norm.state_dict())
        self.positions = nn.ParameterDict()
        self.prompts = nn.ParameterDict()
        for index in (2, 3):
            key = "x".join(map(str, SPEC.modalities[modality].position_grids))
            self._take(
                backbone, f"stages.{index}.positions.tables.{key}", self.positions, str(index)
            )
            for name in (f"tokens.{modality}", "projection.weight", "projection.bias"):
                self._take(
                    backbone,
                    f"stages.{index}.prompts.{name}",
                    self.prompts,
                    f"{index}{name}".replace(".", "_"),
                )
        self.theirs |= {"norm.weight": self.norm.weight, "norm.bias": self.norm.bias}

    def _take(self, backbone: Backbone, name: str, where: nn.ParameterDict, key: str) -> None:
        where[key] = self.theirs[name] = nn.Parameter(backbone.get_parameter(name).detach().clone())

    def _merging(self, backbone: Backbone, index: int) -> nn.Module:
        """timm's merging, or for the keep path torch's own linear layer and norm."""
        ours, width = backbone.merges[index], SPEC.widths[index]
        if self.halves:
            other = TimmMerging(width).double()
            other.reduction.load_state_dict(ours.merge.state_dict())
            other.norm.load_state_dict(ours.norm.state_dict())
            self.theirs[f"merges.{index}.merge.weight"] = other.reduction.weight
        else:
            other = nn.Sequential(nn.Linear(width, 2 * width), nn.LayerNorm(2 * width)).double()
            other[0].load_state_dict(ours.keep.state_dict())
            other[1].load_state_dict(ours.norm.state_dict())
            self.theirs |= {
                f"merges.{index}.keep.{name}": p for name, p in other[0].named_parameters()
            }
        norm = other.norm if self.halves else other[1]
        self.theirs |= {f"merges.{index}.norm.{name}": p for name, p in norm.named_parameters()}
        return other

    def forward(self, x):
        """(images, h, w, D) -> the four stages' outputs, (images, h, w, D) each."""
        outputs, blocks = [], iter(self.blocks)
        for index, depth in enumerate(SPEC.depths):
            if index:
                x = self.merges[index - 1](x)  # images h w D
            if index < 2:
                for _ in range(depth):
                    x = next(blocks)(x)
            else:
                grid = x.shape[1:3]
                x = x + self.positions[str(index)]
                tokens = F.linear(
                    self.prompts[f"{index}tokens_{self.modality}"],
                    self.prompts[f"{index}projection_weight"],
                    self.prompts[f"{index}projection_bias"],
                )
                x = torch.cat([tokens.expand(len(x), -1, -1), x.flatten(1, 2)], 1)  # images P+hw D
                for _ in range(depth):
                    x = next(blocks)(x)
                x = x[:, len(tokens) :].unflatten(1, grid)
            outputs.append(x)
        return [*outputs[:-1], self.norm(x)]


def test_two_modalities_in_one_pass_equal_others_modules_one_by_one():
    """Values of all stages, and gradients of the input and of every parameter."""
    backbone = random_backbone()
    source = torch.Generator().manual_seed(1)
    x = torch.randn(LAYOUT.tokens, 16, dtype=torch.float64, generator=source)
    ours = x.clone().requires_grad_()
    stages, _ = backbone(ours, LAYOUT, PRESENT)
    upstream = [torch.randn(y.shape, dtype=torch.float64, generator=source) for y, _ in stages]
    torch.autograd.backward([y for y, _ in stages], upstream)

    expected = {name: torch.zeros_like(p) for name, p in backbone.named_parameters()}
    gradients = []
    for i, group in enumerate(LAYOUT.groups):
        other = Composition(backbone, group.modality, group.height)
        alone = (
            LAYOUT.split(x)[i].unflatten(1, (group.height, group.width)).clone().requires_grad_()
        )
        outputs = other(alone)
        for (y, layout), z in zip(stages, outputs):
            torch.testing.assert_close(layout.split(y)[i], z.flatten(1, 2), **TIGHT)
        torch.autograd.backward(
            outputs,
            [layout.split(u)[i].view_as(z) for u, (_, layout), z in zip(upstream, stages, outputs)],
        )
        gradients.append(alone.grad.flatten(1, 2))
        for name, parameter in other.theirs.items():
            expected[name] += parameter.grad.view_as(expected[name])
    torch.testing.assert_close(ours.grad, pack(gradients), **TIGHT)
    for name, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name, **TIGHT)
