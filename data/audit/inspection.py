"""A picture of one sample as training sees it: rasters, series with dates, views and crops."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch, Polygon

from data.errors import InputError
from data.pages.style import class_colour
from data.stream.collate import collate
from data.stream.cut import cut_sample
from data.stream.decode import Decoded
from data.stream.mixture import Mixture
from data.stream.order import Order
from data.stream.sample import Batch
from data.stream.settings import DataSettings
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED

COLUMNS = 8  # pictures in a row
TRUE_COLOUR = [2, 1, 0]  # B04, B03, B02
VIEW_COLOURS = plt.get_cmap("tab10").colors
INVALID = (1.0, 0.0, 1.0)
PICTURE = 2.2  # inches a small picture
TILE_HEIGHT = 3  # small pictures


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
    if settings.problem():
        raise InputError(settings.problem())
    if step < 0:
        raise InputError(f"--step: expected 0 or more, found {step}")
    dataset = Mixture.open(settings)
    sample, use = choose(dataset, key, step, seed)
    cut = cut_sample(dataset, settings, seed=seed, sample=sample, use=use)
    batch = collate(step, [cut], settings)
    figure = draw(dataset, sample, cut.tile, cut.draw.frames, batch)
    figure.suptitle(f"{title(dataset.entry(sample))}   use {use}", fontsize=12)
    figure.savefig(out, dpi=90)
    return f"{dataset.entry(sample)['key']}, use {use}"


def choose(dataset: Mixture, key: str | None, step: int, seed: int) -> tuple[int, int]:
    """Sample and use. Raises InputError for an unknown key."""
    if key is None:
        return Order(seed, dataset.parts, batch_size=1).step(step)[0]
    keys = dataset.keys()
    if key not in keys:
        raise InputError(
            f"{dataset.path}: no sample {key!r} among {len(keys)}; the first ones are {keys[:5]}"
        )
    return keys.index(key), step


def title(entry: dict) -> str:
    """Where the sample lies and what it has."""
    has = ", ".join(f"{name} {len(entry['dates'][name])}" for name in entry["modalities"])
    return (
        f"{entry['key']}   lon {entry['lon']:.4f} lat {entry['lat']:.4f}   "
        f"{entry['cells'] * 10} m   stored frames: {has}"
    )


def draw(
    dataset: Mixture, sample: int, tile: Decoded, frames: dict[str, np.ndarray], batch: Batch
) -> plt.Figure:
    """The whole picture: the tile on top, one row for each series, one row of crops for each thing
    the tile has."""
    dates = {
        name: [dataset.entry(sample)["dates"][name][i] for i in chosen]
        for name, chosen in frames.items()
        if len(chosen)
    }
    views = [(name, v) for name, group in batch.views.items() for v in range(group.affine.shape[1])]
    rows = [*dates, *(["labels"] if tile.labels is not None else [])]  # of the crops
    heights = [TILE_HEIGHT] + [1.1] * (len(tile.series) + len(rows))
    figure = plt.figure(
        figsize=(PICTURE * max(COLUMNS, len(views)), PICTURE * sum(heights)), layout="constrained"
    )
    top, *bands = figure.subfigures(len(heights), 1, height_ratios=heights)
    draw_tile(top, tile, dates, batch, views, dataset.classes)
    for band, name in zip(bands, tile.series):
        draw_series_row(band.subplots(1, COLUMNS), tile, dates, name)
    for band, what in zip(bands[len(tile.series) :], rows):
        axes = band.subplots(1, len(views))
        for column, (name, v) in enumerate(views):
            draw_crop(axes[column], batch, name, v, what, VIEW_COLOURS[column % 10])
    return figure


def draw_tile(
    figure: plt.Figure, tile: Decoded, dates: dict, batch: Batch, views: list, classes: list
) -> None:
    """The tile with the views' rectangles, and its labels. Without high resolution the first series
    frame stands in."""
    whole, labels = figure.subplots(1, 2)
    extent = (0, tile.cells, tile.cells, 0)  # 10 m cells, y down
    if tile.hr is not None:
        image, caption = tile.hr.permute(1, 2, 0).numpy(), f"hr {dates['hr'][0]}"
    else:
        name = next(iter(tile.series))
        image, caption = (
            picture(name, tile.series[name][0].numpy()),
            f"no hr; {name} {dates[name][0]}",
        )
    whole.imshow(image, extent=extent)
    whole.set_title(f"{caption}; views, dashed: local, dot: what they show top left", fontsize=9)
    for column, (name, v) in enumerate(views):
        corners = (
            np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
            @ batch.views[name].affine[0, v].numpy().T
        )
        inset = (column + 1) * tile.cells / 300  # so that equal edges stay apart
        corners += inset * np.sign(corners.mean(0) - corners)
        colour = VIEW_COLOURS[column % 10]
        style = "-" if name == "global" else "--"
        whole.add_patch(
            Polygon(corners, fill=False, edgecolor=colour, linewidth=2, linestyle=style)
        )
        whole.plot(*corners[0], "o", color=colour)
    if tile.labels is None:
        labels.set_title("no labels", fontsize=9)
        labels.set_axis_off()
        return
    labels.set_title("labels (white: none)", fontsize=9)
    labels.imshow(class_picture(tile.labels.numpy()), extent=extent)
    found = [int(i) for i in tile.labels.unique() if i != UNLABELLED]
    handles = [Patch(color=class_colour(i), label=classes[i]["name"]) for i in found]
    labels.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9, frameon=False
    )


def draw_series_row(axes: np.ndarray, tile: Decoded, dates: dict, name: str) -> None:
    """Drawn frames of a series, evenly chosen when there are more than places; magenta: invalid."""
    for axis in axes:
        axis.set_axis_off()
    count = len(tile.series[name])
    shown = np.unique(np.linspace(0, count - 1, min(count, len(axes))).round().astype(int))
    for axis, i in zip(axes, shown):
        image = picture(name, tile.series[name][i].numpy())
        axis.imshow(np.where(tile.valid[name][i].numpy()[..., None], image, INVALID))
        axis.set_title(f"{name} {i + 1}/{count} {dates[name][i]}", fontsize=8)


def draw_crop(axis: plt.Axes, batch: Batch, name: str, v: int, what: str, colour: tuple) -> None:
    """One view of one modality (first frame) or of the labels, as the model gets it."""
    views = batch.views[name]
    if what == "labels":
        labels = views.labels[0, v].numpy()
        axis.imshow(class_picture(np.where(labels < 0, UNLABELLED, labels)))
    else:
        sensor = MODALITIES[what]
        mean, std = np.array(sensor.mean)[:, None, None], np.array(sensor.std)[:, None, None]
        image = picture(what, views.images[what][0, v, 0].numpy() * std + mean)
        valid = np.kron(
            views.valid[what][0, v, 0].numpy(), np.ones((sensor.pixels, sensor.pixels), bool)
        )
        axis.imshow(np.where(valid[..., None], image, INVALID))
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{name} {v + 1} {what}", fontsize=8)
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=3, linestyle="-" if name == "global" else "--")


def picture(modality: str, image: np.ndarray) -> np.ndarray:
    """C H W in stored units (hr: 0..1) -> H W 3 in 0..1."""
    if modality == "ms":
        image = image[TRUE_COLOUR] / 2500  # reflectance 0.25 is white
    elif modality == "sar":
        image = np.repeat((image[:1] + 25) / 25, 3, axis=0)  # VV from -25 to 0 dB
    return np.clip(image, 0, 1).transpose(1, 2, 0)


def class_picture(labels: np.ndarray) -> np.ndarray:
    """H W class indices -> H W 3; white where unlabelled."""
    colours = np.array([class_colour(i) for i in range(256)])
    colours[UNLABELLED] = 1
    return colours[labels]
