"""Where a pixel of a view lies on the ground, by its affine, is where its content comes from: in
every modality."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.stream.augment import Colours
from data.stream.collate import collate
from data.stream.cut import cut
from data.stream.decode import Decoded
from data.stream.draw import SampleDraw
from data.stream.frames import ViewFrames
from data.stream.settings import GLOBAL, LOCAL, DataSettings, ViewSettings
from data.stream.views import View
from data.tiles.modalities import HR_PIXELS, MODALITIES
from data.tiles.tile import LABEL_PIXELS

HALF = 0.5  # pixels


def ramp(cells: int, pixels: int, axis: int) -> np.ndarray:
    """Place in 10 m cells of every pixel centre, along x (axis 1) or y (axis 0): pN x pN."""
    line = (np.arange(cells * pixels) + 0.5) / pixels
    return np.broadcast_to(line if axis else line[:, None], (cells * pixels,) * 2)


def tile(cells: int, level: int) -> Decoded:
    """A tile whose values say where they are: x in the first band, y in the second."""
    p = HR_PIXELS >> level
    x = ramp(cells, p, 1)
    y = ramp(cells, p, 0)
    hr = np.stack([x, y, y]) / cells * 255
    series = {}
    for name in ("ms", "sar"):
        bands = len(MODALITIES[name].bands)
        fine = np.stack([ramp(cells, 1, 1)] + [ramp(cells, 1, 0)] * (bands - 1))
        series[name] = torch.from_numpy(fine[None].astype(np.float32))
    labels = np.floor(ramp(cells, LABEL_PIXELS, 1)).astype(np.uint8)  # the column of the cell
    valid = {name: torch.ones(1, cells, cells, dtype=torch.bool) for name in ("hr", "ms", "sar")}
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
    """Tile, size of the view, rectangle, mirror and turns, level of the image."""
    cells = draw(st.integers(4, 24))
    n = draw(st.sampled_from([4, 8]))
    w = draw(st.integers(4, cells))
    h = draw(st.integers(4, cells))
    x0 = draw(st.integers(0, cells - w))
    y0 = draw(st.integers(0, cells - h))
    flip = draw(st.booleans())
    turns = draw(st.integers(0, 3))
    level = draw(st.integers(0, 2))
    return cells, n, View(x0, y0, w, h, flip=flip, turns=turns), level


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_modality_shows_the_ground_that_the_affine_names(case):
    cells, n, view, level = case
    assume(min(view.w, view.h) >= n >> 1)
    chosen = DataSettings(
        shards="unused",
        frames={"hr": 1, "ms": 1, "sar": 1},
        views=ViewSettings(global_cells=n, local_cells=n, global_views=2, local_views=1),
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
        level=level,
    )
    batch = collate(0, [cut(draw, tile(cells, level), chosen.views)], chosen)
    found = batch.views[GLOBAL]
    for name in ("hr", "ms", "sar"):
        sensor = MODALITIES[name]
        image = found.images[name][0, 0, 0].numpy()  # C H W
        stored = image * np.array(sensor.std)[:, None, None] + np.array(sensor.mean)[:, None, None]
        shown = stored[:2] * (cells if name == "hr" else 1.0)  # in cells
        expected = places(found.affine[0, 0].numpy(), image.shape[-1])
        source = (HR_PIXELS >> level) if name == "hr" else 1  # pixels a cell
        inner = slice(*_inner(image.shape[-1], view, source))
        wide = (
            np.array([view.w, view.h]) / n / sensor.pixels
        )  # cells a pixel of the view, along x and y
        coarser = np.maximum(wide, 1 / source)
        rounding = cells / 255 if name == "hr" else 0.0  # of the ramp to bytes
        for axis in (0, 1):
            off = np.abs(shown[axis] - expected[..., axis])[inner, inner]
            assert off.max(initial=0) <= HALF * coarser[axis] + rounding
    labels = found.labels[0, 0].numpy()
    expected = places(found.affine[0, 0].numpy(), labels.shape[-1])[..., 0]
    off = np.maximum(
        labels - expected, expected - labels - 1
    )  # outside the cell that the label names
    assert off.max() <= HALF * max(1 / LABEL_PIXELS, view.w / n / LABEL_PIXELS)


def _inner(side: int, view: View, source: int) -> tuple[int, int]:
    """Without the border, where the resizing kernel finds no neighbours beyond the rectangle: two
    source pixels, or two pixels of the view if those are wider."""
    border = int(np.ceil(2 * max(1.0, side / (min(view.w, view.h) * source))))
    return border, max(border, side - border)
