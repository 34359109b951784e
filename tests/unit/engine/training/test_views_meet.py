"""Views of unlike sizes meet at the same ground: what the pixel loss compares is one place."""

import numpy as np
import pytest
import torch
from torch import Tensor

from data.stream.settings import ViewSize
from data.stream.views import View, affine, cut_hr, cut_series
from models.pretraining.losses.correspondence import match, sample

CELLS = 24
# rectangles that overlap, mirrored and turned in every way
STUDENTS = [View(3, 5, 9, 8, flip=turns % 2 == 0, turns=turns) for turns in range(4)]
TEACHERS = [View(1, 2, 20, 22, flip=turns < 2, turns=turns) for turns in range(4)]
SIZES = {
    "student": ViewSize(1, {"hr": 96, "ms": 8, "sar": 12}, (0.0, 1.0)),
    "teacher": ViewSize(1, {"hr": 320, "ms": 32, "sar": 24}, (0.0, 1.0)),
}


def ramp(pixels: int) -> Tensor:
    """A tile with the place of every pixel, in cells: 3 pN pN; the third band is 0."""
    line = (torch.arange(CELLS * pixels) + 0.5) / pixels
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, 0 * x])


def cut_places(view: View, size: ViewSize, sensor: str) -> Tensor:
    """The places that the pixels of a view show: H W 2 in cells of the tile."""
    side = size.pixels[sensor]
    valid = torch.ones(CELLS, CELLS, dtype=torch.bool)
    if sensor == "hr":
        image = (10 * ramp(32)).round().to(torch.uint8)
        return cut_hr(image, valid, view, side)[0][:2].permute(1, 2, 0) / 10
    return cut_series(ramp(1)[None], valid[None], view, side)[0][0, :2].permute(1, 2, 0)


@pytest.mark.parametrize("student_sensor", ["hr", "ms", "sar"])
@pytest.mark.parametrize("teacher_sensor", ["hr", "ms", "sar"])
def test_matched_cells_of_two_views_and_sensors_show_one_place(student_sensor, teacher_sensor):
    met = 0
    for student, teacher in zip(STUDENTS, TEACHERS):
        seen = cut_places(student, SIZES["student"], student_sensor)  # h w 2
        there = cut_places(teacher, SIZES["teacher"], teacher_sensor)[None, None, None]
        side = len(seen)
        affines = [torch.from_numpy(affine(view))[None, None] for view in (student, teacher)]
        places = match(*affines, (side, side))
        everywhere = torch.ones(there.shape[:-1], dtype=torch.bool)
        found, valid = sample(there, everywhere, places)  # 1 1 1 1 h w 2, 1 1 1 1 h w
        inner = np.s_[side // 4 : -side // 4]  # beside the borders of the resizing kernels
        assert valid[0, 0, 0, 0].all()
        error = (found[0, 0, 0, 0].float() - seen)[inner, inner].abs().max()
        # half a pixel of the coarser one on the ground; the byte image is rounded
        wide = max(9 / side, 22 / there.shape[3], 1 / 16)
        assert error <= 0.5 * wide + 0.1, (student, teacher)
        met += side**2
    assert met
