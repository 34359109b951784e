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

from data.audit.page.painting import draw_tile, outline_axis, paint, tile_picture, view_picture
from data.stream.collate import collate
from data.stream.cut import cut_sample
from data.stream.sample import Batch, CutSample, ViewName
from data.stream.settings import GLOBAL, LOCAL
from data.tiles.modalities import MODALITIES
from engine.pretrained.weights import load_pretraining
from engine.report.feature_maps import Maps, components, feature_maps
from engine.report.run_files import read
from engine.report.training_views import clearest_view_frame
from models.features import FUSED

KEY = "treesat-betula-spec-1-15679"
VIEWS = {
    ViewName(GLOBAL, 0): "#e4572e",
    ViewName(GLOBAL, 1): "#17a398",
    ViewName(LOCAL, 0): "#f3a712",
    ViewName(LOCAL, 1): "#669bbc",
}
FRAMES = 4  # of a series that are shown
PATCH = 4  # pixels of a token's side
GREY = "#888888"
TOKEN_COLOURS = ("#c44e52", "#dd8452", "#4c72b0", "#8172b3", "#55a868", "#64b5cd")


def show(axis: Axes, image: np.ndarray, *, title: str = "", colour: str = GREY) -> None:
    """A small picture with a coloured outline."""
    axis.imshow(image)
    outline_axis(axis, colour)
    axis.set_title(title, fontsize=8)


def heading(panel: SubFigure, text: str, files: str) -> None:
    """What a panel shows, and the files that do it."""
    panel.suptitle(text, fontsize=10, weight="bold", x=0.02, ha="left")
    panel.text(0.02, 0.005, files, fontsize=8, family="monospace", color="#555555")


def draw_files(panel: SubFigure, cut: CutSample) -> None:
    """Frames of each sensor on the tile's grid."""
    axes = panel.subplots(len(MODALITIES), FRAMES)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, modality in zip(axes, MODALITIES):
        count = len(cut.tile.images(modality))
        chosen = np.unique(np.linspace(0, count - 1, FRAMES).round().astype(int))
        images = paint(modality, [tile_picture(cut.tile, modality, frame) for frame in chosen])
        for axis, image in zip(row, images):
            axis.set_axis_on()
            show(axis, image)
        row[0].set_ylabel(modality, fontsize=9)
    heading(panel, "1  Files on one 10 m grid", "data/prepare/")


def draw_views(panel: SubFigure, cut: CutSample) -> None:
    """The same ground in each sensor, as the model gets it."""
    axes = panel.subplots(len(MODALITIES), len(VIEWS))
    for row, modality in zip(axes, MODALITIES):
        frame = clearest_view_frame(cut, modality)
        images = paint(modality, [view_picture(cut.view(name), modality, frame) for name in VIEWS])
        for axis, image, (name, colour) in zip(row, images, VIEWS.items()):
            show(axis, image, title=str(name) if modality == "hr" else "", colour=colour)
        row[0].set_ylabel(modality, fontsize=9)
    heading(panel, "3  Views: the same ground, all sensors", "data/stream/")


def draw_tokens(panel: SubFigure, cut: CutSample, batch: Batch) -> None:
    """Patches of a view, and where their tokens lie on the one axis of all tokens."""
    upper, lower = panel.subplots(2, 1, height_ratios=(5, 1))
    name = ViewName(LOCAL, 0)
    picture = view_picture(cut.view(name), "hr", 0)
    title = f"{name}, hr: patches of {PATCH} x {PATCH} pixels"
    show(upper, paint("hr", [picture])[0], title=title, colour=VIEWS[name])
    side = picture.pixels.shape[-1]
    edges = np.arange(PATCH, side, PATCH) - 0.5
    upper.hlines(edges, -0.5, side - 0.5, color="white", linewidth=0.4)
    upper.vlines(edges, -0.5, side - 0.5, color="white", linewidth=0.4)
    counts = token_counts(batch)
    total = sum(counts.values())
    start = 0
    for (label, count), colour in zip(counts.items(), TOKEN_COLOURS):
        lower.barh(0, count, left=start, color=colour)
        if count > 0.04 * total:
            lower.text(start + count / 2, 0, label, ha="center", va="center", fontsize=6.5)
        start += count
    lower.set(yticks=[], xlim=(0, total))
    lower.tick_params(labelsize=7)
    lower.set_xlabel("tokens of one sample, all on one axis", fontsize=8)
    heading(panel, "4  Tokens", "models/backbone/tokenizer.py, packing.py")


def token_counts(batch: Batch) -> dict[str, int]:
    """Tokens of one sample by sensor and view size."""
    counts = {}
    for size, views in batch.views.items():
        for modality, images in views.images.items():
            _, number, frames, _, height, width = images.shape  # B V T C H W
            patches = (height // PATCH) * (width // PATCH)
            counts[f"{modality}\n{size}"] = number * frames * patches
    return counts


def draw_features(panel: SubFigure, maps: Maps) -> None:
    """Principal components of the features as colours."""
    axes = panel.subplots(2, 2)
    for axis, name in zip(axes.flat, ("hr, stage 3", "hr, stage 4", "ms, stage 4", FUSED)):
        show(axis, components([maps.maps[name]])[0], title=name)
    heading(panel, "5  Features, as colours", "models/backbone/, models/fusion/")


def main() -> None:
    """Write the picture beside this file."""
    run = read(Path(sys.argv[1]), sys.argv[2])
    settings = run.config.settings
    sample = run.dataset.keys().index(KEY)
    cut = cut_sample(run.dataset, settings.data, seed=settings.seed, sample=sample, use=0)
    batch = collate(0, [cut], settings.data)
    model = load_pretraining(run.checkpoint)
    maps = feature_maps(model, run.dataset, settings.data, sample=sample, zoom=2)

    figure = Figure(figsize=(16, 3.9))
    panels = figure.subfigures(1, 5, width_ratios=(3.2, 2.6, 3.6, 2.9, 2.9))
    draw_files(panels[0], cut)
    tile_axis = panels[1].subplots()
    draw_tile(tile_axis, cut, VIEWS)
    outline_axis(tile_axis, GREY)
    tile_axis.set_xlabel("")
    heading(panels[1], "2  Tile with its views", "data/tiles/archive.py, data/shards/")
    draw_views(panels[2], cut)
    draw_tokens(panels[3], cut, batch)
    draw_features(panels[4], maps)
    for panel in panels:
        panel.subplots_adjust(left=0.1, right=0.97, top=0.84, bottom=0.1, wspace=0.08, hspace=0.15)
    panels[3].subplots_adjust(bottom=0.22)  # room for the axis of tokens
    figure.savefig(Path(__file__).with_name("sample_way.png"), dpi=110)


if __name__ == "__main__":
    main()
