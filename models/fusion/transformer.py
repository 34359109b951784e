"""Multi-modal temporal fusion transformer.

At every cell of the fusion grid the tokens of all modalities and dates form one short sequence
behind one learnable token. Attention runs inside that sequence only: over time and modality, never
over space. So the cells of all images, views and view sizes stand along one packed axis C. The
order of the tokens has no meaning: the day of the year and the modality's own projection tell them
apart.

Letters here: ``M`` images (samples x views), ``C`` cells of all images, ``S`` tokens of a sequence,
``W`` channels.
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
# Sequences of an attention call: CUDA kernels put the batch on a grid axis limited to 65535.
MAX_CELLS = 32768
MLP_RATIO = 4


class CellSeries(NamedTuple):
    """Backbone features of the views of one size, all modalities on one fusion grid."""

    tokens: dict[str, Tensor]  # modality -> M T G D
    valid: dict[str, Tensor]  # modality -> M T G bool
    days: dict[str, Tensor]  # modality -> M T int64, day of year - 1 (0..365)


class FusionLayer(nn.Module):
    """One pre-norm transformer layer that can compute only the first tokens of each sequence."""

    def __init__(self, width: int, *, heads: int, mlp_ratio: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, mask: Tensor, keep: int) -> Tensor:
        """Run the layer.

        Args:
            x: (C, S, W).
            mask: (C, S) bool, the tokens that may be attended to.
            keep: The number of tokens whose output is computed.

        Returns:
            (C, keep, W).
        """
        normed = self.norm1(x)  # C S W
        width = normed.shape[-1]
        if keep == normed.shape[1]:
            q, k, v = self.qkv(normed).chunk(3, dim=-1)  # C S W each
        else:  # the dropped tokens still give keys and values, but need no query, output or MLP
            weight = self.qkv.weight
            bias = self.qkv.bias
            q = F.linear(normed[:, :keep], weight[:width], bias[:width])  # C keep W
            k, v = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)  # C S W each
        x = x[:, :keep] + self.out(self.attend(q, k, v, mask))  # C keep W
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # C keep W

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Multi-head attention.

        Args:
            q: (C, keep, W).
            k: (C, S, W).
            v: (C, S, W).
            mask: (C, S) bool, the keys that count.

        Returns:
            (C, keep, W).
        """
        chunks = zip(
            self._split_heads(q).split(MAX_CELLS),
            self._split_heads(k).split(MAX_CELLS),
            self._split_heads(v).split(MAX_CELLS),
            mask[:, None, None].split(MAX_CELLS),  # C 1 1 S
        )
        outputs = []
        for q_part, k_part, v_part, mask_part in chunks:
            outputs.append(
                F.scaled_dot_product_attention(q_part, k_part, v_part, attn_mask=mask_part)
            )
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs)  # C heads keep head_dim
        return x.transpose(1, 2).flatten(2)  # C keep W

    def _split_heads(self, x: Tensor) -> Tensor:
        """(C, S, W) -> (C, heads, S, head_dim)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Fusion(nn.Module):
    """Tokens of all modalities and dates at a cell -> one fused vector.

    Every modality has its own projection from the backbone's width. Its bias serves as the
    modality's embedding.
    """

    def __init__(
        self,
        spec: FusionSpec,
        in_width: int,
        modalities: Sequence[str],
        *,
        recompute: str = NONE,
    ):
        """Build the layers.

        Args:
            spec: The sizes.
            in_width: D, the backbone's last width.
            modalities: All names.
            recompute: One of ``models.recompute.POLICIES``.

        Raises:
            ModelError: The policy is unknown.
        """
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
            FusionLayer(spec.width, heads=spec.heads, mlp_ratio=MLP_RATIO)
            for _ in range(spec.layers)
        )
        self.norm = nn.LayerNorm(spec.width)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the learnable token, the only parameter that no standard module owns."""
        if name != "token":
            raise ModelError(
                f"Fusion: expected the parameter 'token', found {name!r}; give it a rule of its own"
            )
        truncated_normal(tensor, generator)

    def forward(self, parts: Sequence[CellSeries]) -> list[Tensor]:
        """Fuse views of several sizes in one packed batch of cells.

        Args:
            parts: One a view size. Each has any subset of the modalities and any number of frames.
                Where ``valid`` is False a token has no influence, even if NaN.

        Returns:
            (M, G, W) for each part. A cell without any valid token also gets a finite vector: the
            learnable token attends to itself.

        Raises:
            ModelError: A part has no modality or an unknown one.
        """
        sequences = []
        masks = []
        for part in parts:
            sequence, mask = self._sequence(part)
            sequences.append(sequence)
            masks.append(mask)
        length = max(mask.shape[1] for mask in masks)
        # parts with fewer frames are filled up with masked tokens
        x = torch.cat([F.pad(s, (0, 0, 0, length - s.shape[1])) for s in sequences])  # C S-1 W
        mask = torch.cat([F.pad(m, (0, length - m.shape[1])) for m in masks])  # C S-1
        x = torch.cat([self.token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)  # C S W
        mask = F.pad(mask, (1, 0), value=True)  # C S
        fused = self.encode(x, mask)  # C W
        outputs = []
        for cells, part in zip(fused.split([len(s) for s in sequences]), parts):
            images = next(iter(part.tokens.values())).shape[0]
            outputs.append(cells.unflatten(0, (images, -1)))  # M G W
        return outputs

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Run all layers and give the first token's output.

        Args:
            x: Packed sequences (C, S, W).
            mask: (C, S) bool, the tokens that count.

        Returns:
            (C, W).
        """
        for number, layer in enumerate(self.layers):
            keep = x.shape[1]
            if number == len(self.layers) - 1:
                keep = 1  # nobody reads the last layer's other tokens
            x = run_block(layer, x, mask, keep, policy=self.recompute)  # C keep W
        return self.norm(x[:, 0])  # C W

    def _sequence(self, part: CellSeries) -> tuple[Tensor, Tensor]:
        """Projected and dated tokens of one part: (M G, frames of all modalities, W), and mask."""
        unknown = set(part.tokens) - set(self.projections)
        if unknown or not part.tokens:
            raise ModelError(
                f"fusion: expected some of the modalities {list(self.projections)}, found "
                f"{list(part.tokens)}; rename them, or build the model with them"
            )
        tokens = []
        masks = []
        # the order of the projections is fixed, that of the part is not
        for name, projection in self.projections.items():
            if name not in part.tokens:
                continue
            features = part.tokens[name]  # M T G D
            valid = part.valid[name]  # M T G
            # a masked key has weight zero, but 0 x NaN would still be NaN
            features = features.where(valid[..., None], features.new_zeros(()))  # M T G D
            day = self.day(part.days[name].clamp(max=DAYS - 1))  # M T W
            x = projection(features) + day[:, :, None]  # M T G W
            tokens.append(x.transpose(1, 2).flatten(0, 1))  # C T W
            masks.append(valid.transpose(1, 2).flatten(0, 1))  # C T
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)
