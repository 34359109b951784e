"""A picture of one sample as training sees it: rasters, series with dates, views and crops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from data.audit.page.painting import (
    VIEW_COLOURS,
    draw_tile,
    line_style,
    outline_axis,
    paint,
    paint_classes,
    tile_picture,
    view_picture,
)
from data.errors import InputError
from data.pages.class_colours import Colour, class_colours
from data.shards.records import ClassRow, IndexEntry
from data.stream.cut import cut_sample
from data.stream.mixture import Mixture
from data.stream.order import Order, SampleUse
from data.stream.sample import CutSample, ViewName
from data.stream.settings import DataSettings
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED

COLUMNS = 8  # pictures in a row
PICTURE = 2.2  # inches, side of a small picture
TILE_HEIGHT = 3  # in small pictures
ROW_HEIGHT = 1.1  # in small pictures
OWN_FRAMES = 8  # drawn of a sensor that is not built in


def draw_sample(
    settings: DataSettings, out: Path, *, key: str | None = None, step: int = 0, seed: int = 0
) -> str:
    """Draw one sample of ``settings.shards`` and write the picture.

    Args:
        settings: Folder of the shards and sizes of the views.
        out: Name of the picture, ending in ``.png``.
        key: Sample to draw. Without it the order of the seed decides.
        step: How often the sample was used before (with ``key``), or the position in the order.
        seed: Seed of the run.

    Returns:
        The sample's key and use in words, such as ``"tile-7, use 0"``.

    Raises:
        InputError: A picture that cannot be written, settings that do not fit together, a negative
            step, an unknown key or a damaged dataset.
    """
    if out.suffix != ".png" or not out.absolute().parent.is_dir():
        raise InputError(
            f"--out: expected a name ending in .png in a folder that exists, found {out}"
        )
    problem = settings.problem()
    if problem is not None:
        raise InputError(problem)
    if step < 0:
        raise InputError(f"--step: expected 0 or more, found {step}")
    dataset = Mixture.open(settings)
    settings = with_own_sensors(settings)
    problem = settings.views.problem()
    if problem is not None:
        raise InputError(problem)
    sample, use = choose(dataset, key, step=step, seed=seed)
    cut = cut_sample(dataset, settings, seed=seed, sample=sample, use=use)
    figure = draw(cut, dataset.classes)
    figure.suptitle(f"{title(dataset.entry(sample))}   use {use}", fontsize=12)
    figure.savefig(out, dpi=90)
    return f"{cut.draw.key}, use {use}"


def with_own_sensors(settings: DataSettings) -> DataSettings:
    """The settings with some frames of each sensor that is not built in.

    Where nobody has said it, such a sensor has as many pixels along a cell as ``ms``, times its
    own.
    """
    frames = {}
    global_pixels = {}
    local_pixels = {}
    views = settings.views
    for sensor in MODALITIES.own():
        frames[sensor.key] = OWN_FRAMES
        global_pixels[sensor.key] = views.global_pixels["ms"] * sensor.pixels
        local_pixels[sensor.key] = views.local_pixels["ms"] * sensor.pixels
    views = replace(
        views,
        global_pixels={**global_pixels, **views.global_pixels},
        local_pixels={**local_pixels, **views.local_pixels},
    )
    return replace(settings, frames={**frames, **settings.frames}, views=views)


def choose(dataset: Mixture, key: str | None, *, step: int, seed: int) -> SampleUse:
    """The sample to draw, and its use; arguments as ``draw_sample``.

    Raises:
        InputError: the key is unknown.
    """
    if key is None:
        return Order(seed, dataset.parts, batch_size=1).step(step)[0]
    keys = dataset.keys()
    if key not in keys:
        raise InputError(
            f"{dataset.path}: no sample {key!r} among {len(keys)}; the first ones are {keys[:5]}"
        )
    return SampleUse(keys.index(key), step)


def title(entry: IndexEntry) -> str:
    """Key, place and size of the sample, and how many frames are stored."""
    counts = [f"{name} {len(entry.dates[name])}" for name in entry.modalities]
    place = "no place"
    if entry.place is not None:
        place = "lon {:.4f} lat {:.4f}".format(*entry.place)
    return f"{entry.key}   {place}   {entry.cells * 10} m   stored frames: {', '.join(counts)}"


def draw(sample: CutSample, classes: list[ClassRow]) -> Figure:
    """The whole picture.

    The tile is on top, then one row for each series, then one row of crops for each sensor and for
    the labels.

    Args:
        sample: what was drawn and cut.
        classes: the dataset's class table.
    """
    colours = {}
    for number, name in enumerate(sample.names):
        colours[name] = VIEW_COLOURS[number % len(VIEW_COLOURS)]
    crop_rows = list(sample.draw.dates)
    if sample.tile.labels is not None:
        crop_rows.append("labels")
    heights = [TILE_HEIGHT] + [ROW_HEIGHT] * (len(sample.tile.series) + len(crop_rows))
    width = max(COLUMNS, len(colours))
    figure = Figure(figsize=(PICTURE * width, PICTURE * sum(heights)), layout="constrained")
    bands = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    _draw_tile_and_labels(bands.pop(0), sample, colours, classes)
    for modality in sample.tile.series:
        _draw_series(bands.pop(0).subplots(1, COLUMNS), sample, modality)
    for content in crop_rows:
        _draw_crops(bands.pop(0), sample, content, colours)
    return figure


def _draw_tile_and_labels(
    figure: SubFigure, sample: CutSample, colours: dict[ViewName, str], classes: list[ClassRow]
) -> None:
    """The tile with the views' rectangles, and its labels."""
    whole, labels = figure.subplots(1, 2)
    modality, frame = draw_tile(whole, sample, colours)
    date = sample.draw.dates[modality][frame]
    whole.set_title(
        f"{modality} {date}; views, dashed: local, dot: the corner shown top left", fontsize=9
    )
    _draw_labels(labels, sample, classes)


def _draw_labels(axis: Axes, sample: CutSample, classes: list[ClassRow]) -> None:
    """The labels of the tile with a legend of their classes."""
    tile = sample.tile
    if tile.labels is None:
        axis.set_title("no labels", fontsize=9)
        axis.set_axis_off()
        return
    axis.set_title("labels (white: none)", fontsize=9)
    colours = colours_of(sample)
    image = paint_classes(tile.labels.numpy(), colours)
    axis.imshow(image, extent=(0, tile.cells, tile.cells, 0))
    handles = []
    for index, colour in colours.items():
        handles.append(Patch(color=colour, label=classes[index].name))
    axis.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9, frameon=False
    )


def colours_of(sample: CutSample) -> dict[int, Colour]:
    """Colours of the classes of the tile, for its labels and for every view of them."""
    if sample.tile.labels is None:
        return {}
    classes = sample.tile.labels.unique().tolist()
    return class_colours(index for index in classes if index != UNLABELLED)


def _draw_series(axes: np.ndarray, sample: CutSample, modality: str) -> None:
    """Drawn frames of a series, evenly spread if there are more than places."""
    for axis in axes:
        axis.set_axis_off()
    tile = sample.tile
    count = len(tile.series[modality])
    places = np.linspace(0, count - 1, min(count, len(axes)))
    frames = np.unique(places.round().astype(int)).tolist()
    pictures = [tile_picture(tile, modality, frame) for frame in frames]
    for axis, frame, image in zip(axes, frames, paint(modality, pictures)):
        axis.imshow(image)
        date = sample.draw.dates[modality][frame]
        axis.set_title(f"{modality} {frame + 1}/{count} {date}", fontsize=8)


def _draw_crops(
    figure: SubFigure, sample: CutSample, content: str, colours: dict[ViewName, str]
) -> None:
    """All views of the labels or of one sensor's first frame, as the model gets them."""
    axes = figure.subplots(1, len(colours))
    for axis, image, (name, colour) in zip(axes, _paint_views(sample, content), colours.items()):
        axis.imshow(image)
        axis.set_title(f"{name} {content}", fontsize=8)
        outline_axis(axis, colour, line_style(name))


def _paint_views(sample: CutSample, content: str) -> list[np.ndarray]:
    """Colours H W 3 of all views of the labels or of one sensor's first frame."""
    views = [sample.view(name) for name in sample.names]
    if content != "labels":
        return paint(content, [view_picture(view, content, 0) for view in views])
    colours = colours_of(sample)
    painted = []
    for view in views:
        if view.labels is not None:
            painted.append(paint_classes(view.labels.numpy(), colours))
    return painted
