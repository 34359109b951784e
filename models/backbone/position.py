"""Learned position tables at the entry of the global stages, resized to whatever grid comes."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone.packing import Layout, pack
from models.initialise import truncated_normal
from models.spec import ModalitySpec


class Positions(nn.Module):
    """One table a native grid: modalities whose grids agree through all stages (the Sentinels)
    share theirs.

    ``stage``: 0 for the first global stage, 1 for the second, as in
        ``ModalitySpec.position_grids``.
    """

    def __init__(self, modalities: dict[str, ModalitySpec], stage: int, width: int):
        super().__init__()
        self.table_of = {name: table_name(spec) for name, spec in modalities.items()}
        sides = {table_name(spec): spec.position_grids[stage] for spec in modalities.values()}
        self.tables = nn.ParameterDict(
            {key: nn.Parameter(torch.zeros(side, side, width)) for key, side in sides.items()}
        )

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill one table."""
        truncated_normal(tensor, generator)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Packed (N, D) without prompts -> (N, D) with the position of every token added."""
        resized: dict[tuple[str, int, int], Tensor] = {}
        parts = []
        for part, group in zip(layout.split(x), layout.groups):
            key = self.table_of[group.modality], group.height, group.width
            if key not in resized:
                resized[key] = (
                    resize(self.tables[key[0]], *key[1:]).flatten(0, 1).to(x.dtype)
                )  # hw D
            parts.append(part + resized[key])  # images hw D
        return pack(parts)  # N D


def resize(table: Tensor, height: int, width: int) -> Tensor:
    """(s, s, D) -> (h, w, D), bicubic with averaging towards coarser grids; the same table if the
    grid is native.

    As two matrix products: unlike interpolation on CUDA they have a deterministic backward.
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
@torch.inference_mode(False)  # what is kept must serve training too
def bicubic_matrix(size: int, side: int, device: torch.device) -> Tensor:
    """Weights (side, size) float64 of ``size`` samples in ``side`` samples over the same length;
    rows sum to one."""
    identity = torch.eye(size, dtype=torch.float64, device="cpu")[None, None]  # 1 1 size size
    weights = F.interpolate(
        identity, size=(side, size), mode="bicubic", antialias=True, align_corners=False
    )
    return weights[0, 0].to(device)


def table_name(spec: ModalitySpec) -> str:
    """Name of a table in the state dict; no dots, they are separators there."""
    return "x".join(map(str, spec.position_grids))
