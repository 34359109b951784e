"""Where a pixel of a view lies on the ground, by its affine, is where its content comes from: in
every modality, whatever its size, and for parts of cells where a tile has no pixels of 10 m."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.stream.augment import Colours
from data.stream.collate import collate
from data.stream.cut import cut
from data.stream.decode import Decoded
from data.stream.draw import SampleDraw
from data.stream.frames import ViewFrames
from data.stream.settings import GLOBAL, LOCAL, DataSettings, ViewSettings
from data.stream.views import View, cut_hr, steps_in_cell
from data.tiles.modalities import HR_PIXELS, MODALITIES
from data.tiles.tile import LABEL_PIXELS

HALF = 0.5  # pixels


def ramp(cells: int, pixels: int, axis: int) -> np.ndarray:
    """Place in 10 m cells of every pixel centre, along x (axis 1) or y (axis 0): pN x pN."""
    line = (np.arange(cells * pixels) + 0.5) / pixels
    return np.broadcast_to(line if axis else line[:, None], (cells * pixels,) * 2)


def tile(cells: int, level: int, names: list[str]) -> Decoded:
    """A tile of some sensors whose values say where they are: x in the first band, y in the
    second."""
    p = HR_PIXELS >> level
    x = ramp(cells, p, 1)
    y = ramp(cells, p, 0)
    hr = np.stack([x, y, y]) / cells * 255
    series = {}
    for name in names:
        if name == "hr":
            continue
        bands = len(MODALITIES[name].bands)
        fine = np.stack([ramp(cells, 1, 1)] + [ramp(cells, 1, 0)] * (bands - 1))
        series[name] = torch.from_numpy(fine[None].astype(np.float32))
    labels = np.floor(ramp(cells, LABEL_PIXELS, 1)).astype(np.uint8)  # the column of the cell
    valid = {name: torch.ones(1, cells, cells, dtype=torch.bool) for name in names}
    return Decoded(
        cells,
        torch.from_numpy(np.rint(hr).astype(np.uint8)),
        torch.from_numpy(labels),
        series,
        valid,
    )


def places(affine: np.ndarray, side: int) -> np.ndarray:
    """x and y in cells of the tile of every pixel centre of a view, by its affine: side side 2."""
    centres = (np.arange(side) + 0.5) / side
    u, v = np.meshgrid(centres, centres)
    return np.stack([u, v, np.ones_like(u)], -1) @ affine.T


@st.composite
def cases(draw):
    """Tile, sides of the view, rectangle, mirror and turns, level of the image."""
    cells = draw(st.integers(4, 24))
    sides = {"hr": draw(st.sampled_from([96, 160, 256]))}
    if draw(st.booleans()):
        for name in ("ms", "sar"):
            sides[name] = draw(st.sampled_from([4, 8, 12, 32]))
    steps = steps_in_cell(sides)
    w = draw(st.integers(4 * steps, cells * steps))
    h = draw(st.integers(4 * steps, cells * steps))
    x0 = draw(st.integers(0, cells * steps - w))
    y0 = draw(st.integers(0, cells * steps - h))
    flip = draw(st.booleans())
    turns = draw(st.integers(0, 3))
    level = draw(st.integers(0, 2))
    return cells, sides, View(x0, y0, w, h, flip=flip, turns=turns, steps=steps), level


def shown(cells: int, sides: dict, view: View, level: int):
    """The ramp's batch with the one rectangle in every view, and its settings."""
    chosen = DataSettings(
        shards="unused",
        frames=dict.fromkeys(sides, 1),
        views=ViewSettings(global_pixels=sides, local_pixels=sides, global_views=2, local_views=1),
    )
    views = {GLOBAL: [view, view], LOCAL: [view]}
    draw = SampleDraw(
        sample=0,
        use=0,
        key="ramp",
        region=0,
        frames={},
        dates={},
        views=views,
        shown={name: [ViewFrames({}, {})] * len(group) for name, group in views.items()},
        colours={name: [Colours()] * len(group) for name, group in views.items()},
        levels={name: [{}] * len(group) for name, group in views.items()},
        level=level,
    )
    ground = tile(cells, level, list(sides))
    return collate(0, [cut(draw, ground, chosen.views)], chosen).views[GLOBAL]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_modality_shows_the_ground_that_the_affine_names(case):
    cells, sides, view, level = case
    views = shown(cells, sides, view, level)
    affine = views.affine[0, 0].numpy()
    for name, side in sides.items():
        sensor = MODALITIES[name]
        image = views.images[name][0, 0, 0].numpy()  # C H W
        assert image.shape[1:] == (side, side) and views.valid[name].all()
        stored = image * np.array(sensor.std)[:, None, None] + np.array(sensor.mean)[:, None, None]
        values = stored[:2] * (cells if name == "hr" else 1.0)  # in cells
        expected = places(affine, side)
        source = (HR_PIXELS >> level) if name == "hr" else 1  # pixels a cell
        inner = slice(*_inner(side, view, source))
        wide = np.array([view.w, view.h]) / view.steps / side  # cells a pixel of the view
        coarser = np.maximum(wide, 1 / source)
        rounding = cells / 255 if name == "hr" else 0.0  # of the ramp to bytes
        for axis in (0, 1):
            off = np.abs(values[axis] - expected[..., axis])[inner, inner]
            assert off.max(initial=0) <= HALF * coarser[axis] + rounding
    labels = views.labels[0, 0].numpy()
    assert len(labels) == max(sides["hr"] // 4, sides.get("ms", 0), sides.get("sar", 0))
    expected = places(affine, len(labels))[..., 0]
    # outside the cell that the label names
    off = np.maximum(labels - expected, expected - labels - 1)
    assert off.max() <= HALF * max(1 / LABEL_PIXELS, view.w / view.steps / len(labels))


def _inner(side: int, view: View, source: int) -> tuple[int, int]:
    """Without the border, where the resizing kernel finds no neighbours beyond the rectangle: two
    source pixels, or two pixels of the view if those are wider."""
    border = int(np.ceil(2 * max(1.0, side / (min(view.w, view.h) / view.steps * source))))
    return border, max(border, side - border)


@pytest.mark.parametrize(
    "names, steps", [(["hr"], 8), (["hr", "ms"], 1), (["sar"], 1), ([], LABEL_PIXELS)]
)
def test_rectangles_cut_no_pixel(names, steps):
    assert steps_in_cell(names) == steps


def test_part_of_a_cell_follows_the_mask_of_that_cell():
    cells = 6
    ground = tile(cells, 0, ["hr"])
    ground.valid["hr"][0, :, 3] = False  # columns 96 to 127 of 192
    image, mask = cut_hr(ground.hr, ground.valid["hr"][0], View(4, 0, 30, 30, steps=8), 120)
    # the rectangle begins at column 16 and is shown pixel by pixel
    present = torch.ones(120, 120, dtype=torch.bool)
    present[:, 96 - 16 : 128 - 16] = False
    assert torch.equal(mask, present)
    assert torch.equal(image[:, present], ground.hr[:, :120, 16:136][:, present])
