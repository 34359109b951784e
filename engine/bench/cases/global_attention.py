"""Attention of stages 3 and 4 over images of different length, prompt tokens in front.

Which call is fastest decides what models/backbone/transformer.py should use.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, FORWARD, Case, Work, exact, leaves
from engine.bench.cases.candidates import (
    built_later,
    candidate,
    compiled,
    draw,
    precise,
    type_name,
)
from models.backbone.attention import split_alike
from models.backbone.transformer import GlobalAttention
from models.packing import Group, Layout, pack

DIM = 32
LEFT_OUT = {
    "varlen_attn": "flash attention, a GPU's",
    "flex_attention": "its backward pass is a GPU's",
}


class Size(NamedTuple):
    """Images of square grids with prompt tokens in front of each.

    Attributes:
        groups: Images and side of each group.
        heads: Attention heads.
        prompts: Prompt tokens of an image.
    """

    groups: tuple[tuple[int, int], ...]
    heads: int
    prompts: int = 4

    def __str__(self) -> str:
        groups = " ".join(f"{images} x {side}^2" for images, side in self.groups)
        return f"{self.heads} heads, {self.prompts} prompts, {groups}"

    def layout(self) -> Layout:
        """The table of the packed axis."""
        groups = []
        for number, (images, side) in enumerate(self.groups):
            groups.append(Group("any", f"group {number}", images, side, side, self.prompts))
        return Layout(tuple(groups))


SIZES = {
    # 4 samples, two global and six local views: 512 and 128 pixels of HR, then 64 and 16 pixels of
    # 20 + 10 frames of the Sentinel sensors
    "paper": [
        Size(((8, 32), (24, 8), (240, 16), (720, 4)), 44),
        Size(((8, 16), (24, 4), (240, 16), (720, 4)), 88),
    ],
    "small": [Size(((2, 16), (6, 4), (10, 8), (30, 2)), 8)],
    "tiny": [Size(((1, 4), (2, 2)), 2)],
}


def case(size: Size, device: torch.device) -> Case:
    """The model's own call for each group, the formula, torch's varlen and flex attention."""
    dtype = precise(device)
    layout = size.layout()
    qkv = draw(layout.tokens, 3, size.heads, DIM, device=device, seed=0).to(dtype)  # N 3 heads d
    attention = GlobalAttention(size.heads * DIM, head_dim=DIM)
    by_group = partial(_by_group, attention=attention, layout=layout)
    plain = partial(formula, layout=layout)
    # what the model uses is the base: the question is whether another call should take its place
    candidates = [
        candidate("SDPA by group", by_group, leaves(qkv), ours=True),
        candidate("eager", plain, leaves(qkv)),
        candidate("torch.compile", compiled(plain), leaves(qkv)),
    ]
    left_out = LEFT_OUT
    if device.type == "cuda":
        varlen = built_later(partial(_varlen, layout, device))
        flex = built_later(partial(_flex, layout, device))
        candidates += [
            candidate("varlen_attn", varlen, leaves(qkv)),
            candidate("flex_attention", flex, leaves(qkv)),
        ]
        left_out = {}
    pairs = sum(group.images * group.length**2 for group in layout.groups)
    product = 2 * pairs * size.heads * DIM
    tensor_bytes = qkv[:, 0].numel() * qkv.element_size()  # of q, k, v, the result or a gradient
    return Case(
        "attention by image",
        f"{size}, {type_name(dtype)}",
        candidate("exact", plain, exact(qkv)),
        tuple(candidates),
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-4,
        products=dtype,
        work={
            FORWARD: Work(4 * tensor_bytes, 2 * product),
            BACKWARD: Work(8 * tensor_bytes, 5 * product),
        },
        left_out=left_out,
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
    """As ``GlobalAttention.forward`` between its projections: (N, D)."""
    parts = []
    for _, part in split_alike(qkv, layout):
        parts.append(attention.attend(part[:, :, 0], part[:, :, 1:]))
    return pack(parts)


def _lengths(layout: Layout) -> Tensor:
    """Tokens of each image: (images,) int64."""
    lengths = []
    for group in layout.groups:
        lengths += [group.length] * group.images
    return torch.tensor(lengths)


def _varlen(layout: Layout, device: torch.device) -> Callable[[Tensor], Tensor]:
    """torch's variable-length flash attention over the whole packed axis."""
    from torch.nn.attention.varlen import varlen_attn  # loads CUDA kernels

    lengths = _lengths(layout)
    ends = F.pad(lengths.cumsum(0), (1, 0)).to(device, torch.int32)  # images + 1
    longest = int(lengths.max())

    def call(qkv: Tensor) -> Tensor:
        q, k, v = qkv.unbind(1)  # N heads d
        out = cast(Tensor, varlen_attn(q, k, v, ends, ends, longest, longest))  # N heads d
        return out.flatten(1)  # N D

    return call


def _flex(layout: Layout, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Compiled flex attention whose blocks between different images are skipped."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    lengths = _lengths(layout)
    image = torch.arange(len(lengths)).repeat_interleave(lengths).to(device)  # N
    tokens = layout.tokens

    def same_image(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return image[query] == image[key]

    mask = torch.compile(create_block_mask)(same_image, None, None, tokens, tokens, device)
    attend = torch.compile(flex_attention, dynamic=False)

    def call(qkv: Tensor) -> Tensor:
        q, k, v = qkv.permute(1, 2, 0, 3)[:, None]  # 1 heads N d
        out = cast(Tensor, attend(q, k, v, block_mask=mask))  # 1 heads N d
        return out[0].transpose(0, 1).flatten(1)  # N D

    return call
