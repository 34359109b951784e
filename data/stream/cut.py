"""The one path from a stored sample to its views, for training, reports and viewers alike."""

from torch import Tensor

from data.stream.augment import Colours, Levels
from data.stream.decode import Decoded, Source, read_raw, unpack
from data.stream.draw import SampleDraw, draw_sample
from data.stream.frames import ViewFrames
from data.stream.sample import CutSample, CutView
from data.stream.settings import DataSettings, ViewSettings, ViewSize
from data.stream.views import View, cut_hr, cut_labels, cut_series


def cut_sample(
    dataset: Source, settings: DataSettings, *, seed: int, sample: int, use: int
) -> CutSample:
    """Draw, read, decode and cut one use of a sample, as training with this seed sees it.

    Args:
        dataset: a mixture or one sharded dataset.
        settings: frames, views and augmentation.
        seed: of the run.
        sample: number in the dataset.
        use: how often the run has drawn the sample before.

    Raises:
        InputError: the sample cannot be read or is damaged.
    """
    draw = draw_sample(dataset, settings, seed=seed, sample=sample, use=use)
    raw = read_raw(dataset, sample, draw.frames, level=draw.level)
    return cut(draw, unpack(raw), settings.views)


def cut(draw: SampleDraw, tile: Decoded, settings: ViewSettings) -> CutSample:
    """Cut the drawn views from a decoded tile."""
    views: dict[str, list[CutView]] = {}
    for name, size in settings.sizes.items():
        views[name] = []
        drawn = zip(draw.views[name], draw.shown[name], draw.colours[name], draw.levels[name])
        for view, frames, colours, levels in drawn:
            views[name].append(
                _cut_view(tile, view, size, frames=frames, colours=colours, levels=levels)
            )
    return CutSample(draw, tile, views)


def _cut_view(
    tile: Decoded,
    view: View,
    size: ViewSize,
    *,
    frames: ViewFrames,
    colours: Colours,
    levels: dict[str, Levels],
) -> CutView:
    """One view of everything that the tile has."""
    images: dict[str, Tensor] = {}
    valid: dict[str, Tensor] = {}
    if tile.hr is not None:
        image, mask = cut_hr(tile.hr, tile.valid["hr"][0], view, size.pixels["hr"])  # 3 H W, H W
        images["hr"] = image[None]  # 1 3 H W
        valid["hr"] = mask[None]  # 1 H W
    for modality, series in tile.series.items():
        images[modality], valid[modality] = cut_series(
            series, tile.valid[modality], view, size.pixels[modality]
        )
    labels = None
    if tile.labels is not None:
        labels = cut_labels(tile.labels, view, size.label_pixels)  # L L
    return CutView(
        view=view,
        images=images,
        valid=valid,
        frames=frames,
        labels=labels,
        colours=colours,
        levels=levels,
    )
