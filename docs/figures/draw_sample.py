"""Draw docs/figures/sample_way.png: one place on its way from raster files to features.

    make demo
    PYTHONPATH=. python docs/figures/draw_sample.py runs/demo/pretrain runs/demo/shards

The place is one of the bundled samples; the features are those of the run's teacher.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Polygon

from data.stream.collate import collate
from data.stream.cut import cut_sample
from data.stream.mixture import Mixture
from data.stream.sample import Batch
from data.tiles.modalities import MODALITIES
from engine.pretrained.weights import load_pretraining
from engine.report import pictures
from engine.report.run_files import read
from models.features import FUSED

KEY = "treesat-betula-spec-1-15679"
SHOWN_VIEWS = (("global", 0), ("global", 1), ("local", 0), ("local", 1))
COLOURS = ("#e4572e", "#17a398", "#f3a712", "#669bbc")
DATES = 4  # frames of a series that are shown
PATCH = 4  # pixels of a token's side


def bare(axis: Axes, title: str = "", colour: str = "#888888") -> None:
    """No ticks, a thin frame."""
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=8)
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=1.5)


def heading(panel: SubFigure, text: str, file: str) -> None:
    """What a panel shows, and the file that does it."""
    panel.suptitle(text, fontsize=10, weight="bold", x=0.02, ha="left")
    panel.text(0.02, 0.005, file, fontsize=8, family="monospace", color="#555555")


def draw_files(panel: SubFigure, batch: Batch, cut) -> None:
    """The frames of each sensor on the tile's grid."""
    axes = panel.subplots(len(MODALITIES), DATES)
    for row, modality in zip(axes, MODALITIES):
        for axis in row:
            axis.set_axis_off()
        if modality == "hr":
            images = [cut.tile.hr.permute(1, 2, 0).numpy()]
        else:
            series = cut.tile.series[modality]
            valid = cut.tile.valid[modality]
            chosen = np.linspace(0, len(series) - 1, DATES).round().astype(int)
            frames = [(series[i].numpy(), valid[i].numpy()) for i in chosen]
            images = pictures.paint(modality, frames)
        for axis, image in zip(row, images):
            axis.set_axis_on()
            axis.imshow(image)
            bare(axis)
        row[0].set_ylabel(modality, fontsize=9)
    heading(panel, "1  Files on one 10 m grid", "data/prepare/")


def draw_tile(axis: Axes, batch: Batch, cut) -> None:
    """The tile with the rectangles of its views."""
    cells = cut.tile.cells
    axis.imshow(cut.tile.hr.permute(1, 2, 0).numpy(), extent=(0, cells, cells, 0))
    square = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    for (size, number), colour in zip(SHOWN_VIEWS, COLOURS):
        affine = batch.views[size].affine[0, number].numpy()  # 2 3
        corners = square @ affine.T  # 4 2
        line = "-" if size == "global" else "--"
        outline = Polygon(corners, fill=False, edgecolor=colour, linewidth=2, linestyle=line)
        axis.add_patch(outline)
    bare(axis)
    axis.set(xlim=(0, cells), ylim=(cells, 0))


def draw_views(panel: SubFigure, batch: Batch) -> None:
    """The same ground in each sensor, as the model gets it."""
    axes = panel.subplots(len(MODALITIES), len(SHOWN_VIEWS))
    for row, modality in zip(axes, MODALITIES):
        frame = pictures.best_frame(batch.views["global"], modality)
        crops = [
            pictures.crop(batch.views[size], modality, number, frame)
            for size, number in SHOWN_VIEWS
        ]
        painted = pictures.paint(modality, crops)
        for axis, image, (size, number), colour in zip(row, painted, SHOWN_VIEWS, COLOURS):
            axis.imshow(image)
            title = f"{size} {number + 1}" if modality == "hr" else ""
            bare(axis, title, colour)
        row[0].set_ylabel(modality, fontsize=9)
    heading(panel, "3  Views: the same ground, all sensors", "data/stream/")


def draw_tokens(panel: SubFigure, batch: Batch) -> None:
    """Patches of a view, and where their tokens lie on the one axis of all tokens."""
    upper, lower = panel.subplots(2, 1, height_ratios=(5, 1))
    modality = "hr"
    frame = pictures.best_frame(batch.views["global"], modality)
    image = pictures.crop(batch.views["local"], modality, 0, frame)
    upper.imshow(pictures.paint(modality, [image])[0])
    side = image[0].shape[-1]
    edges = np.arange(PATCH, side, PATCH) - 0.5
    upper.hlines(edges, -0.5, side - 0.5, color="white", linewidth=0.4)
    upper.vlines(edges, -0.5, side - 0.5, color="white", linewidth=0.4)
    bare(upper, f"local 1, hr: patches of {PATCH} x {PATCH} pixels", COLOURS[2])
    counts = []
    for size, views in batch.views.items():
        for name, images in views.images.items():
            height, width = images.shape[-2:]
            frames = images.shape[1] * images.shape[2]
            counts.append((f"{name}\n{size}", frames * (height // PATCH) * (width // PATCH)))
    start = 0
    shades = ("#c44e52", "#dd8452", "#4c72b0", "#8172b3", "#55a868", "#64b5cd")
    for (label, count), shade in zip(counts, shades):
        if count == 0:
            continue
        lower.barh(0, count, left=start, color=shade)
        if count > 0.04 * sum(number for _, number in counts):
            lower.text(start + count / 2, 0, label, ha="center", va="center", fontsize=6.5)
        start += count
    lower.set(yticks=[], xlim=(0, start))
    lower.tick_params(labelsize=7)
    lower.set_xlabel("tokens of one sample, all on one axis", fontsize=8)
    heading(panel, "4  Tokens", "models/backbone/tokenizer.py, packing.py")


def draw_features(panel: SubFigure, maps: pictures.Maps) -> None:
    """Principal components of the features as colours."""
    names = ["hr, stage 3", "hr, stage 4", "ms, stage 4", FUSED]
    axes = panel.subplots(2, 2)
    for axis, name in zip(axes.flat, names):
        (image,) = pictures.components([maps.maps[name]])
        axis.imshow(image)
        bare(axis, name)
    heading(panel, "5  Features, as colours", "models/backbone/, models/fusion/")


def main() -> None:
    """Write the picture beside this file."""
    run = read(Path(sys.argv[1]), sys.argv[2])
    settings = run.config.settings
    dataset = Mixture.open(settings.data)
    number = dataset.keys().index(KEY)
    cut = cut_sample(dataset, settings.data, seed=settings.seed, sample=number, use=0)
    batch = collate(0, [cut], settings.data)
    model = load_pretraining(run.checkpoint)
    maps = pictures.feature_maps(model, dataset, settings.data, number, 16)

    figure = Figure(figsize=(16, 3.9))
    panels = figure.subfigures(1, 5, width_ratios=(3.2, 2.6, 3.6, 2.9, 2.9))
    draw_files(panels[0], batch, cut)
    draw_tile(panels[1].subplots(), batch, cut)
    heading(panels[1], "2  Tile with its views", "data/tiles/archive.py, data/shards/")
    draw_views(panels[2], batch)
    draw_tokens(panels[3], batch)
    draw_features(panels[4], maps)
    for panel in panels:
        panel.subplots_adjust(left=0.1, right=0.97, top=0.84, bottom=0.1, wspace=0.08, hspace=0.15)
    panels[3].subplots_adjust(bottom=0.2)  # room for the axis of tokens
    figure.savefig(Path(__file__).with_name("sample_way.png"), dpi=110)


if __name__ == "__main__":
    main()
