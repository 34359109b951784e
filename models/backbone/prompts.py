"""Modality-specific prompt tokens (supplement, F.4): they tell the shared weights the sensor."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.initialise import truncated_normal
from models.packing import Layout, pack


class Prompts(nn.Module):
    """Learnable tokens of every modality behind one shared projection, for one stage.

    The projection explains the 9.94 M parameters of table 6: tokens alone would be 0.05 M.
    """

    def __init__(self, modalities: Sequence[str], *, width: int, count: int):
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
        """Put ``count`` tokens in front of every image.

        Args:
            x: Packed tokens (N, D) without prompts.
            layout: Their table.

        Returns:
            Packed tokens with prompts, and their table.
        """
        names = list(self.tokens)
        tokens = torch.stack([self.tokens[name] for name in names])  # modalities P D
        prompts = self.projection(tokens).to(x.dtype)  # modalities P D
        outputs = []
        for images, group in zip(layout.split(x), layout.groups):
            prompt = prompts[names.index(group.modality)]  # P D
            prompt = prompt.expand(group.images, -1, -1)  # images P D
            outputs.append(torch.cat([prompt, images], dim=1))  # images P+hw D
        return pack(outputs), layout.with_prefix(self.count)


def drop_prefix(x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """Packed tokens and their table without the prompts in front of the images."""
    if not any(group.prefix for group in layout.groups):
        return x, layout
    parts = [part[:, group.prefix :] for part, group in zip(layout.split(x), layout.groups)]
    return pack(parts), layout.with_prefix(0)
