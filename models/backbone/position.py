"""Learned position tables at the entry of the global stages, resized to the grid of each group."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.initialise import truncated_normal
from models.packing import Group, Layout, pack
from models.spec import ModalitySpec


class Positions(nn.Module):
    """One table a native grid.

    Modalities whose grids agree through all stages (the Sentinels) share theirs.
    """

    def __init__(self, modalities: dict[str, ModalitySpec], *, stage: int, width: int):
        """Args: ``stage`` is the place in ``ModalitySpec.position_grids``, ``width`` is D."""
        super().__init__()
        self.table_of = {name: table_name(spec) for name, spec in modalities.items()}
        tables = {}
        for name, spec in modalities.items():
            side = spec.position_grids[stage]
            tables[self.table_of[name]] = nn.Parameter(torch.zeros(side, side, width))
        self.tables = nn.ParameterDict(tables)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill one table."""
        truncated_normal(tensor, generator)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Add the position of every token to packed tokens (N, D) without prompts."""
        resized: dict[tuple[str, int, int], Tensor] = {}
        outputs = []
        for tokens, group in zip(layout.split(x), layout.groups):
            key = (self.table_of[group.modality], group.height, group.width)
            if key not in resized:
                resized[key] = self._resized(group).to(x.dtype)  # hw D
            outputs.append(tokens + resized[key])  # images hw D
        return pack(outputs)  # N D

    def _resized(self, group: Group) -> Tensor:
        """The table of a group at its grid, (hw, D)."""
        table = self.tables[self.table_of[group.modality]]
        return resize(table, group.height, group.width).flatten(0, 1)


def resize(table: Tensor, height: int, width: int) -> Tensor:
    """Resize a table (s, s, D) to (height, width, D).

    Bicubic, with averaging towards coarser grids; a table of the right size is returned as it is.
    The two matrix products have a deterministic backward, unlike interpolation on CUDA.
    """
    side = table.shape[0]
    if height != side:
        rows = bicubic_matrix(side, height, table.device).to(table.dtype)  # h s
        table = torch.einsum("hs,swd->hwd", rows, table)
    if width != side:
        columns = bicubic_matrix(side, width, table.device).to(table.dtype)  # w s
        table = torch.einsum("ws,hsd->hwd", columns, table)
    return table  # h w D


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # the cached tensor must also serve training
def bicubic_matrix(size: int, side: int, device: torch.device) -> Tensor:
    """Weights (side, size) float64 that resample ``size`` samples to ``side`` over one length.

    Rows sum to one.
    """
    identity = torch.eye(size, dtype=torch.float64, device="cpu")[None, None]  # 1 1 size size
    weights = F.interpolate(
        identity, size=(side, size), mode="bicubic", antialias=True, align_corners=False
    )
    return weights[0, 0].to(device)


def table_name(spec: ModalitySpec) -> str:
    """Name of a table in the state dict. It has no dots, which are separators there."""
    return "x".join(str(side) for side in spec.position_grids)
