"""Multi-modal temporal fusion transformer.

At every cell of the fusion grid the tokens of all modalities and dates form one short sequence
behind one learnable token. Attention runs inside that sequence only: over time and modality, never
over space. So the cells of all images, views and view sizes stand along one packed axis C, and the
order of the tokens carries no meaning: the day of the year and the modality's own projection tell
them apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.initialise import truncated_normal
from models.recompute import NONE, WINDOWS, check_policy, run_block
from models.spec import FusionSpec

DAYS = 365  # rows of the day table; day 366 of a leap year shares the last one
MAX_CELLS = (
    32768  # sequences an attention call: CUDA kernels put the batch on a grid axis limited to 65535
)


class CellSeries(NamedTuple):
    """Backbone features of the views of one size, all modalities resized to one fusion grid (see
    ``grids``)."""

    tokens: dict[str, Tensor]  # modality -> M T cells D
    valid: dict[str, Tensor]  # modality -> M T cells bool
    days: dict[str, Tensor]  # modality -> M T int64, day of year - 1 (0..365)


class FusionLayer(nn.Module):
    """One pre-norm transformer layer over (C, S, width) that can compute only the first tokens of
    each sequence."""

    def __init__(self, width: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, mask: Tensor, keep: int) -> Tensor:
        """(C, S, width), mask (C, S) bool of the tokens that may be attended to -> (C, keep,
        width)."""
        read = self.norm1(x)  # C S W
        width = read.shape[-1]
        if keep == read.shape[1]:
            q, k, v = self.qkv(read).chunk(3, dim=-1)  # C S W each
        else:  # the dropped tokens still give keys and values, but need no query, output or MLP
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(read[:, :keep], weight[:width], bias[:width])  # C keep W
            k, v = F.linear(read, weight[width:], bias[width:]).chunk(2, dim=-1)  # C S W each
        x = x[:, :keep] + self.out(self.attend(q, k, v, mask))  # C keep W
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # C keep W

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Multi-head attention: q (C, keep, width), k and v (C, S, width), mask (C, S) bool -> (C,
        keep, width)."""
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v)
        )  # C heads S head_dim
        chunks = zip(
            *(t.split(MAX_CELLS) for t in (q, k, v, mask[:, None, None]))
        )  # the mask: C 1 1 S
        done = [F.scaled_dot_product_attention(*qkv, attn_mask=mask) for *qkv, mask in chunks]
        x = done[0] if len(done) == 1 else torch.cat(done)  # C heads keep head_dim
        return x.transpose(1, 2).flatten(2)  # C keep W


class Fusion(nn.Module):
    """Tokens of all modalities and dates at a cell -> one fused vector.

    Every modality has its own projection from the backbone's width; its bias serves as the
    modality's embedding. ``recompute``: one of ``models.recompute.POLICIES``.
    """

    def __init__(
        self,
        spec: FusionSpec,
        in_width: int,
        modalities: Sequence[str],
        *,
        mlp_ratio: int = 4,
        recompute: str = NONE,
    ):
        super().__init__()
        self.recompute = check_policy(recompute)
        if recompute == WINDOWS:  # the fusion has none
            self.recompute = NONE
        self.projections = nn.ModuleDict(
            {name: nn.Linear(in_width, spec.width) for name in modalities}
        )
        self.day = nn.Embedding(DAYS, spec.width)
        self.token = nn.Parameter(torch.zeros(spec.width))
        self.layers = nn.ModuleList(
            FusionLayer(spec.width, spec.heads, mlp_ratio) for _ in range(spec.layers)
        )
        self.norm = nn.LayerNorm(spec.width)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the learnable token; it is the only parameter that no standard module owns."""
        if name != "token":
            raise ModelError(f"Fusion: expected the parameter 'token', found {name!r}")
        truncated_normal(tensor, generator)

    def forward(self, parts: Sequence[CellSeries]) -> list[Tensor]:
        """Views of several sizes through one packed batch of cells -> a list of (M, cells, width),
        one a part.

        A part holds any subset of the modalities and any number of frames. Where ``valid`` is False
        a token has no influence, whatever it holds. A cell without any valid token still gets a
        finite vector: the learnable token attends to itself. Raises ModelError for a part without
        modalities or with an unknown one.
        """
        parts = [CellSeries(*part) for part in parts]
        sequences, masks = zip(*(self._sequence(part) for part in parts))
        length = max(mask.shape[1] for mask in masks)
        # parts with fewer frames are filled up with masked tokens
        x = torch.cat([F.pad(s, (0, 0, 0, length - s.shape[1])) for s in sequences])  # C S-1 W
        mask = torch.cat([F.pad(m, (0, length - m.shape[1])) for m in masks])  # C S-1
        x = torch.cat([self.token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)  # C S W
        mask = F.pad(mask, (1, 0), value=True)  # C S
        fused = self.encode(x, mask).split([s.shape[0] for s in sequences])  # cells of each part, W
        return [
            y.unflatten(0, (next(iter(part.tokens.values())).shape[0], -1))
            for y, part in zip(fused, parts)
        ]

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Packed sequences (C, S, width), mask (C, S) bool -> the first token's output (C, width)."""
        for i, layer in enumerate(self.layers):
            keep = (
                1 if i == len(self.layers) - 1 else x.shape[1]
            )  # nobody reads the last layer's other tokens
            x = run_block(layer, x, mask, keep, policy=self.recompute)  # C keep W
        return self.norm(x[:, 0])  # C W

    def _sequence(self, part: CellSeries) -> tuple[Tensor, Tensor]:
        """Projected and dated tokens of one part: (M x cells, frames of all modalities, width),
        mask without width."""
        unknown = set(part.tokens) - set(self.projections)
        if unknown or not part.tokens:
            raise ModelError(
                f"fusion: expected some of the modalities {list(self.projections)}, "
                f"found {list(part.tokens)}"
            )
        tokens, masks = [], []
        for (
            name,
            projection,
        ) in self.projections.items():  # a fixed order, whatever the order of the dict
            if name not in part.tokens:
                continue
            valid = part.valid[name]  # M T cells
            # a masked key has weight zero, but 0 x NaN would still be NaN
            x = part.tokens[name].where(
                valid[..., None], part.tokens[name].new_zeros(())
            )  # M T cells D
            day = self.day(part.days[name].clamp(max=DAYS - 1))  # M T W
            x = projection(x) + day[:, :, None]  # M T cells W
            tokens.append(x.transpose(1, 2).flatten(0, 1))  # C T W
            masks.append(valid.transpose(1, 2).flatten(0, 1))  # C T
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)
