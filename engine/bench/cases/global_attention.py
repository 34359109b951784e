"""Attention of stages 3 and 4 over images of unequal length, prompt tokens in front: which call is
fastest decides what models/backbone/transformer.py should use."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, FORWARD, Case, Work, exact, leaves
from engine.bench.cases.ways import built_later, compiled, draw, precise, way
from models.backbone.attention import split_alike
from models.backbone.transformer import GlobalAttention
from models.packing import Group, Layout, pack

DIM = 32
NEEDS_GPU = "flash attention, a GPU's"


class Size(NamedTuple):
    """Images of square grids, with ``prompts`` tokens in front of each: (images, side) by group."""

    groups: tuple[tuple[int, int], ...]
    heads: int
    prompts: int = 4

    def __str__(self):
        return f"{self.heads} heads, {self.prompts} prompts, " + " ".join(
            f"{n} x {s}^2" for n, s in self.groups
        )

    def layout(self) -> Layout:
        """The table of the packed axis."""
        return Layout(
            tuple(
                Group("any", f"group {i}", images, side, side, self.prompts)
                for i, (images, side) in enumerate(self.groups)
            )
        )


SIZES = {
    # 4 samples of the paper preset, two global and six local views: HR, then 20 + 10 frames of the
    # Sentinel sensors
    "paper": [
        Size(((8, 32), (24, 8), (240, 16), (720, 4)), 44),
        Size(((8, 16), (24, 4), (240, 16), (720, 4)), 88),
    ],
    "small": [Size(((2, 16), (6, 4), (10, 8), (30, 2)), 8)],
    "tiny": [Size(((1, 4), (2, 2)), 2)],
}


def case(size: Size, device: torch.device) -> Case:
    """The model's own call for each group, the formula, torch's variable-length attention, flex
    attention."""
    dtype, layout = precise(device), size.layout()
    qkv = draw(layout.tokens, 3, size.heads, DIM, device=device, seed=0).to(dtype)  # N 3 heads d
    by_group = partial(
        _by_group, attention=GlobalAttention(size.heads * DIM, head_dim=DIM), layout=layout
    )
    plain = partial(formula, layout=layout)
    # what the model uses is the base: the question is whether another call should take its place
    ways = [
        way("SDPA by group", by_group, leaves(qkv), ours=True),
        way("eager", plain, leaves(qkv)),
        way("torch.compile", compiled(plain), leaves(qkv)),
    ]
    if device.type == "cuda":
        ways += [
            way("varlen_attn", built_later(partial(_varlen, layout, device)), leaves(qkv)),
            way("flex_attention", built_later(partial(_flex, layout, device)), leaves(qkv)),
        ]
    pairs = sum(group.images * group.length**2 for group in layout.groups)
    product, each = 2 * pairs * size.heads * DIM, qkv[:, 0].numel() * qkv.element_size()
    return Case(
        "attention by image",
        f"{size}, {dtype}".replace("torch.", ""),
        way("exact", plain, exact(qkv)),
        tuple(ways),
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-4,
        products=dtype,
        work={FORWARD: Work(4 * each, 2 * product), BACKWARD: Work(8 * each, 5 * product)},
        left_out={}
        if device.type == "cuda"
        else {"varlen_attn": NEEDS_GPU, "flex_attention": "its backward pass is a GPU's"},
    )


def formula(qkv: Tensor, layout: Layout) -> Tensor:
    """Packed (N, 3, heads, d) -> (N, D): softmax(q k / sqrt(d)) v inside each image."""
    parts = []
    for part in layout.split(qkv):
        q, k, v = part.permute(2, 0, 3, 1, 4)  # images heads length d
        weights = (q @ k.mT * DIM**-0.5).softmax(dim=-1)  # images heads length length
        parts.append((weights @ v).transpose(1, 2).flatten(2))  # images length D
    return pack(parts)


def _by_group(qkv: Tensor, attention: GlobalAttention, layout: Layout) -> Tensor:
    """As ``GlobalAttention.forward`` between its projections."""
    return pack(
        [attention.attend(part[:, :, 0], part[:, :, 1:]) for _, part in split_alike(qkv, layout)]
    )  # N D


def _varlen(layout: Layout, device: torch.device):
    """torch's variable-length flash attention over the whole packed axis."""
    from torch.nn.attention.varlen import varlen_attn  # loads CUDA kernels

    lengths = torch.tensor([group.length for group in layout.groups for _ in range(group.images)])
    ends = F.pad(lengths.cumsum(0), (1, 0)).to(device, torch.int32)  # images + 1
    longest = int(lengths.max())

    def call(qkv: Tensor) -> Tensor:
        return varlen_attn(*qkv.unbind(1), ends, ends, longest, longest).flatten(1)  # N D

    return call


def _flex(layout: Layout, device: torch.device):
    """Compiled flex attention whose blocks between different images are skipped."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    lengths = torch.tensor([group.length for group in layout.groups for _ in range(group.images)])
    image = torch.arange(len(lengths)).repeat_interleave(lengths).to(device)  # N
    tokens = layout.tokens
    mask = torch.compile(create_block_mask)(
        lambda b, h, q, k: image[q] == image[k], None, None, tokens, tokens, device
    )
    attend = torch.compile(flex_attention, dynamic=False)

    def call(qkv: Tensor) -> Tensor:
        q, k, v = qkv.permute(1, 2, 0, 3)[:, None]  # 1 heads N d
        return attend(q, k, v, block_mask=mask)[0].transpose(0, 1).flatten(1)  # N D

    return call
