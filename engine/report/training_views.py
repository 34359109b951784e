"""Pictures of a sample as it entered training, with the cells that meet in the losses."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from data.audit.page.painting import VIEW_COLOURS, draw_tile, outline_axis, paint, view_picture
from data.pages.style import WIDTH
from data.stream.cut import cut_sample
from data.stream.mixture import Mixture
from data.stream.order import Order
from data.stream.sample import CutSample, CutView, ViewName
from data.stream.settings import GLOBAL, LOCAL, DataSettings
from models.count.cost import map_sides
from models.features import FUSED
from models.fusion.grids import cell_validity
from models.pretraining.losses.correspondence import match, sample
from models.spec import ModelSpec

SEARCHED = 4096  # samples looked through for the kinds to draw
MOST_VIEWS = {GLOBAL: 2, LOCAL: 6}  # drawn at most, as many as there are colours
CAPTION = 8.5  # font size


@dataclass(frozen=True)
class Kind:
    """What a sample has."""

    hr: bool  # a high-resolution image
    series: bool  # at least one series


@dataclass(frozen=True)
class Pick:
    """A sample in its first use by the run."""

    sample: int
    use: int
    step: int


def pick(
    dataset: Mixture,
    kinds: Sequence[Kind],
    *,
    sensors: Collection[str],
    seed: int,
    batch_size: int,
) -> list[Pick]:
    """The first sample of each kind in the run's order, as far as the dataset holds them.

    Args:
        dataset: where to look.
        kinds: of samples to find.
        sensors: of the run; others do not count.
        seed: of the run.
        batch_size: global samples a step.
    """
    order = Order(seed, dataset.parts, batch_size=batch_size)
    first: dict[Kind, Pick] = {}
    for position in range(min(len(dataset), SEARCHED)):
        step, slot = divmod(position, batch_size)
        sample, use = order.step(step)[slot]
        usable = dataset.entry(sample).usable  # modality -> frames with a valid pixel
        present = {name for name in sensors if usable.get(name)}
        kind = Kind(hr="hr" in present, series=bool(present - {"hr"}))
        first.setdefault(kind, Pick(sample, use, step))
        if all(kind in first for kind in kinds):
            break
    return [first[kind] for kind in kinds if kind in first]


def draw_views(
    dataset: Mixture, settings: DataSettings, chosen: Pick, spec: ModelSpec, *, seed: int
) -> Figure:
    """One sample as it entered training.

    Shows the tile, crops of every sensor, and which cells meet in the losses.
    """
    cut = cut_sample(dataset, settings, seed=seed, sample=chosen.sample, use=chosen.use)
    names = [name for name in cut.names if name.number < MOST_VIEWS[name.size]]
    colours = dict(zip(names, VIEW_COLOURS))
    crops = _paint_crops(cut, names, settings)
    heights = (max(2.9, 1.12 * len(crops) + 0.3), 2.1)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = top.subfigures(1, 2, width_ratios=(3, WIDTH - 3), squeeze=False)[0]
    tile_axis = left.subplots()
    draw_tile(tile_axis, cut, colours)
    caption = f"{cut.draw.key}\nstep {chosen.step}, tile of {10 * cut.tile.cells} m"
    tile_axis.set_title(caption, fontsize=CAPTION)
    if not crops:  # every cell of the global views is invalid
        return figure
    _draw_crops(right.subplots(len(crops), len(names), squeeze=False), crops, colours)
    pairs = [
        (ViewName(GLOBAL, 0), ViewName(GLOBAL, 1)),
        (ViewName(LOCAL, 0), ViewName(GLOBAL, 0)),
        (names[-1], ViewName(GLOBAL, 1)),
    ]
    widths = [1, 1, 0.15] * len(pairs)  # student, teacher, and a gap
    axes = bottom.subplots(1, len(widths) - 1, gridspec_kw={"width_ratios": widths[:-1]})
    for gap in axes[2::3]:
        gap.set_axis_off()
    images = next(iter(crops.values()))
    sides = {}
    for size, view_size in settings.views.sizes.items():
        sides[size] = map_sides(spec, view_size.pixels)[FUSED]
    for number, (student, teacher) in enumerate(pairs):
        student_axis, teacher_axis = axes[3 * number : 3 * number + 2]
        _draw_view(student_axis, images[student], f"student: {student}", colours[student])
        _draw_view(teacher_axis, images[teacher], f"teacher: {teacher}", colours[teacher])
        matches = correspondence(
            seen(cut.view(student), sides[student.size]),
            seen(cut.view(teacher), sides[teacher.size]),
        )
        _join(student_axis, teacher_axis, matches)
    return figure


def _paint_crops(
    cut: CutSample, names: list[ViewName], settings: DataSettings
) -> dict[str, dict[ViewName, np.ndarray]]:
    """Sensor -> view -> colours H W 3 of the clearest frame, for sensors with anything valid."""
    crops = {}
    for modality in settings.frames:
        frame = clearest_view_frame(cut, modality)
        if frame is None:
            continue
        pictures = [view_picture(cut.view(name), modality, frame) for name in names]
        crops[modality] = dict(zip(names, paint(modality, pictures)))
    return crops


def clearest_view_frame(cut: CutSample, modality: str) -> int | None:
    """The frame of a sensor with most valid pixels in the global views, None without any."""
    if modality not in cut.tile.valid:
        return None
    masks = torch.stack([view.valid[modality] for view in cut.views[GLOBAL]])  # V T H W
    pixels = masks.sum((0, 2, 3))  # T
    if not pixels.any():
        return None
    return int(pixels.argmax())


def _draw_crops(
    axes: np.ndarray,
    crops: dict[str, dict[ViewName, np.ndarray]],
    colours: dict[ViewName, str],
) -> None:
    """A row a sensor, a column a view."""
    for row, (modality, images) in enumerate(crops.items()):
        for axis, (name, image) in zip(axes[row], images.items()):
            axis.imshow(image)
            outline_axis(axis, colours[name])
        axes[row, 0].set_ylabel(modality)
    for axis, name in zip(axes[0], colours):
        axis.set_title(str(name), fontsize=CAPTION)


def _draw_view(axis: Axes, image: np.ndarray, title: str, colour: str) -> None:
    """One view in its own coordinates (u, v) in [0, 1]."""
    axis.imshow(image, extent=(0, 1, 1, 0))
    outline_axis(axis, colour)
    axis.set_title(title, fontsize=CAPTION)


@dataclass(frozen=True)
class Correspondence:
    """Where the fusion cells of a student view lie in a teacher view; (u, v) in [0, 1]."""

    centres: np.ndarray  # n 2, centres of the student's cells, row by row
    places: np.ndarray  # n 2, the same ground in the teacher view
    meets: np.ndarray  # n bool, whether the two meet in the pixel loss


@dataclass(frozen=True)
class SeenView:
    """A view and the cells of its fusion grid with anything valid."""

    affine: Tensor  # 2 3 float64
    cells: Tensor  # h w bool


def seen(view: CutView, side: int) -> SeenView:
    """The fusion cells of a view, ``side`` along a side, with anything valid.

    As the fused map has it, except for the grids that a sensor's features pass on the way.
    """
    cells = torch.zeros(side, side, dtype=torch.bool)
    for valid in view.valid.values():
        cells |= cell_validity(valid, (side, side)).any(0)
    return SeenView(torch.from_numpy(view.affine), cells)


def correspondence(student: SeenView, teacher: SeenView) -> Correspondence:
    """Match the fusion cells of two views of a sample, as the pixel loss does it."""
    side = len(student.cells)
    places = match(student.affine[None, None], teacher.affine[None, None], (side, side))
    maps = teacher.cells[None, None, None, ..., None].float()  # 1 1 1 h w 1
    _, seen_there = sample(maps, teacher.cells[None, None, None], places)  # 1 1 1 1 h w
    meets = seen_there[0, 0, 0, 0] & student.cells  # h w
    u, v = np.meshgrid(np.arange(side), np.arange(side))
    centres = (np.stack([u, v], -1) + 0.5) / side  # h w 2
    return Correspondence(
        centres=centres.reshape(-1, 2),
        places=(places.coords.numpy().reshape(-1, 2) + 1) / 2,
        meets=meets.numpy().ravel(),
    )


def _join(student: Axes, teacher: Axes, matches: Correspondence) -> None:
    """Join the same ground in two views by a line; a cross where the teacher sees nothing."""
    for (u, v), place, meets in zip(matches.centres, matches.places, matches.meets):
        if not meets:
            _mark(student, (u, v), "X", "white", size=6)
            continue
        colour = hsv_to_rgb((0.85 * u, 0.35 + 0.65 * v, 1.0))
        line = ConnectionPatch(
            (u, v), place, student.transData, teacher.transData, color=colour, linewidth=1.1
        )
        line.set_in_layout(False)
        teacher.figure.add_artist(line)
        _mark(student, (u, v), "o", colour, size=5.5)
        _mark(teacher, place, "o", colour, size=5.5)


def _mark(axis: Axes, place: Sequence[float], shape: str, colour: object, *, size: float) -> None:
    """One marker with a thin black edge."""
    axis.plot(
        *place,
        shape,
        color=colour,
        markersize=size,
        markeredgecolor="black",
        markeredgewidth=0.6,
    )
