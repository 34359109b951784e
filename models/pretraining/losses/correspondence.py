"""Where a cell of a student view lies in a teacher view, and the teacher's feature there."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Share of a view's side: a centre on the border belongs to the view despite rounding.
EDGE = 1e-9
# Half of the bilinear weight, despite rounding.
HALF = 0.5 - 1e-6


class Places(NamedTuple):
    """Centres of the student's cells as places in every teacher view."""

    coords: Tensor  # B Vs Vt h w 2 float64, x before y, [-1, 1] inside the teacher view
    inside: Tensor  # B Vs Vt h w bool, whether the place is inside the teacher view


@torch.no_grad()
def match(student_affine: Tensor, teacher_affine: Tensor, grid: tuple[int, int]) -> Places:
    """Find the centres of the student's cells in the coordinates of every teacher view.

    Affines map (u, v, 1) in [0, 1]^2 of a view, u to the right, v down, to metres or cells of the
    tile. The coordinates are those of ``grid_sample(align_corners=False)``.

    Args:
        student_affine: (B, Vs, 2, 3).
        teacher_affine: (B, Vt, 2, 3).
        grid: rows h and columns w of the student's cells.

    Returns:
        Coordinates (B, Vs, Vt, h, w, 2) in float64 and whether they are inside (B, Vs, Vt, h, w).
    """
    height, width = grid
    device = student_affine.device
    v = (torch.arange(height, dtype=torch.float64, device=device) + 0.5) / height  # h
    u = (torch.arange(width, dtype=torch.float64, device=device) + 0.5) / width  # w
    columns = u.expand(height, width)  # h w
    rows = v[:, None].expand(height, width)  # h w
    centres = torch.stack([columns, rows], dim=-1)  # h w 2
    student = student_affine.double()  # B Vs 2 3
    teacher = teacher_affine.double()  # B Vt 2 3
    on_tile = centres.flatten(0, 1) @ student[..., :2].mT + student[..., None, :, 2]  # B Vs hw 2
    offset = on_tile[:, :, None] - teacher[:, None, :, None, :, 2]  # B Vs Vt hw 2
    # ``inv`` would make the host wait for its check; ``inv_ex`` does not.
    inverse = torch.linalg.inv_ex(teacher[..., :2]).inverse  # B Vt 2 2
    place = offset @ inverse[:, None].mT  # B Vs Vt hw 2
    inside = ((place >= -EDGE) & (place <= 1 + EDGE)).all(dim=-1)  # B Vs Vt hw
    return Places((2 * place - 1).unflatten(3, grid), inside.unflatten(3, grid))


@torch.no_grad()
def sample(maps: Tensor, valid: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Read the teacher's features at matched places, bilinearly.

    Invalid teacher cells contribute nothing, even if NaN; the weights of the valid cells are
    rescaled to one. Within half a cell of the border the value of the border cell is used.

    Args:
        maps: (B, Vt, T, H, W, D).
        valid: (B, Vt, T, H, W) bool.
        places: of ``match``.

    Returns:
        Features (B, Vs, Vt, T, h, w, D) float32, zero where masked, and their mask
        (B, Vs, Vt, T, h, w) bool: True inside the view where valid cells have at least half of the
        bilinear weight.
    """
    batch, views, frames, _, _, width = maps.shape
    student_views = places.coords.shape[1]
    height, columns = places.coords.shape[3:5]
    maps = maps.float().where(valid[..., None], 0.0)  # B Vt T H W D
    planes = torch.cat([maps, valid[..., None].float()], dim=-1)  # B Vt T H W D+1
    planes = planes.permute(0, 1, 2, 5, 3, 4).flatten(2, 3).flatten(0, 1)  # BVt T(D+1) H W
    grid = places.coords.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # BVt Vsh w 2
    sampled = F.grid_sample(
        planes, grid.float(), "bilinear", padding_mode="border", align_corners=False
    )  # BVt T(D+1) Vsh w
    sampled = sampled.view(
        batch, views, frames, width + 1, student_views, height, columns
    )  # B Vt T D+1 Vs h w
    sampled = sampled.permute(0, 4, 1, 2, 5, 6, 3)  # B Vs Vt T h w D+1
    features = sampled[..., :-1]  # B Vs Vt T h w D
    weight = sampled[..., -1]  # B Vs Vt T h w
    mask = places.inside[:, :, :, None] & (weight >= HALF)  # B Vs Vt T h w
    scale = weight.where(mask, 1.0)[..., None]  # B Vs Vt T h w 1
    return (features / scale).where(mask[..., None], 0.0), mask
