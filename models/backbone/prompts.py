"""Modality-specific prompt tokens (supplement, F.4): what tells the shared weights which sensor
they look at."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.backbone.packing import Layout, pack
from models.initialise import truncated_normal


class Prompts(nn.Module):
    """Learnable tokens of every modality behind one shared projection, for one stage.

    The projection is what explains the 9.94 M of table 6: tokens alone would be 0.05 M.
    """

    def __init__(self, modalities: Sequence[str], width: int, count: int):
        super().__init__()
        self.count = count
        self.tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(count, width)) for name in modalities}
        )
        self.projection = nn.Linear(width, width)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the tokens of one modality."""
        truncated_normal(tensor, generator)

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Packed (N, D) without prompts -> packed with ``count`` tokens in front of every image,
        and its layout."""
        names = list(self.tokens)
        projected = self.projection(torch.stack([self.tokens[name] for name in names])).to(
            x.dtype
        )  # modalities P D
        parts = []
        for part, group in zip(layout.split(x), layout.groups):
            prompt = projected[names.index(group.modality)].expand(
                group.images, -1, -1
            )  # images P D
            parts.append(torch.cat([prompt, part], dim=1))  # images P+hw D
        return pack(parts), layout.with_prefix(self.count)


def drop_prefix(x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """Packed tokens and layout without the prompts in front of the images."""
    if not any(group.prefix for group in layout.groups):
        return x, layout
    parts = [part[:, group.prefix :] for part, group in zip(layout.split(x), layout.groups)]
    return pack(parts), layout.with_prefix(0)
