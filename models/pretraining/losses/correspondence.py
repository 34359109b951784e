"""Which place of a teacher view shows the same ground as a cell of a student view, and the
teacher's feature there."""

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = (
    1e-9  # of a view's side: a centre that lies on the border belongs to the view despite rounding
)
HALF = 0.5 - 1e-6  # likewise for half of the bilinear weight


@torch.no_grad()
def match(
    student_affine: Tensor, teacher_affine: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Centres of the student's cells in the coordinates of every teacher view, in float64.

    Affines (B, Vs, 2, 3) and (B, Vt, 2, 3) map (u, v, 1) in [0, 1]^2 of a view, u to the right, v
    down, to metres or cells of the tile; ``grid`` (h, w) -> coordinates (B, Vs, Vt, h, w, 2), x
    before y, in [-1, 1] inside the teacher view as ``grid_sample(align_corners=False)`` wants them,
    and whether they are inside (B, Vs, Vt, h, w) bool.
    """
    height, width = grid
    device = student_affine.device
    v = (torch.arange(height, dtype=torch.float64, device=device) + 0.5) / height  # h
    u = (torch.arange(width, dtype=torch.float64, device=device) + 0.5) / width  # w
    centres = torch.stack(
        [u.expand(height, width), v[:, None].expand(height, width)], dim=-1
    )  # h w 2
    student, teacher = student_affine.double(), teacher_affine.double()
    tile = centres.flatten(0, 1) @ student[..., :2].mT + student[..., None, :, 2]  # B Vs hw 2
    offset = tile[:, :, None] - teacher[:, None, :, None, :, 2]  # B Vs Vt hw 2
    inverse = torch.linalg.inv_ex(
        teacher[..., :2]
    ).inverse  # B Vt 2 2; ``inv`` would wait for its check
    place = offset @ inverse[:, None].mT  # B Vs Vt hw 2
    inside = ((place >= -EDGE) & (place <= 1 + EDGE)).all(dim=-1)  # B Vs Vt hw
    return (2 * place - 1).unflatten(3, grid), inside.unflatten(3, grid)


@torch.no_grad()
def sample(maps: Tensor, valid: Tensor, coords: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear teacher features at matched places; invalid teacher cells contribute nothing, NaN
    included.

    ``maps`` (B, Vt, T, H, W, D), ``valid`` (B, Vt, T, H, W) bool, ``coords`` and ``inside`` from
    ``match`` -> features (B, Vs, Vt, T, h, w, D) float32, zero where the mask (B, Vs, Vt, T, h, w)
    is False: outside the view, or less than half of the bilinear weight on valid cells. The weights
    of the valid cells are rescaled to one. Within half a cell of the border the border cell goes
    on.
    """
    batch, views, frames, _, _, width = maps.shape
    maps = maps.float().where(valid[..., None], 0.0)  # B Vt T H W D
    planes = torch.cat([maps, valid[..., None].float()], dim=-1)  # B Vt T H W D+1
    planes = planes.permute(0, 1, 2, 5, 3, 4).flatten(2, 3).flatten(0, 1)  # BVt T(D+1) H W
    grid = coords.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # BVt Vs*h w 2
    found = F.grid_sample(
        planes, grid.float(), "bilinear", padding_mode="border", align_corners=False
    )
    found = found.view(
        batch, views, frames, width + 1, *coords.shape[1:2], *coords.shape[3:5]
    )  # B Vt T D+1 Vs h w
    found = found.permute(0, 4, 1, 2, 5, 6, 3)  # B Vs Vt T h w D+1
    features, weight = found[..., :-1], found[..., -1]
    mask = inside[:, :, :, None] & (weight >= HALF)  # B Vs Vt T h w
    scale = weight.where(mask, 1.0)[..., None]  # B Vs Vt T h w 1
    return (features / scale).where(mask[..., None], 0.0), mask
