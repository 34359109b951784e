"""Pictures of features: maps of a model as colours, by their principal components."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from data.audit.page.painting import INVALID, clearest_frame, paint, tile_picture
from data.pages.style import WIDTH
from data.shards.files import hr_levels
from data.stream.decode import Source, decode
from data.stream.whole_tile import ModelInput, read_whole_tile
from data.tiles.modalities import HR_PIXELS
from engine.evaluate.features import STAGE_3, STAGE_4, ModelFeatures
from engine.evaluate.tiles import collate
from models.features import FUSED
from models.skysense import SkySense

ZOOM = 2  # how many times as many pixels as a global view the tiles are shown with
DRAWN = (STAGE_3, STAGE_4, FUSED)
SAME = 1e-6  # spread of features, relative to their size, that counts as none
LOW = 0.02  # quantile that becomes dark
HIGH = 0.98  # quantile that becomes bright
SHOWN = 256  # pixels along a high-resolution picture, at least
FeatureMap = tuple[Tensor, Tensor]  # h w D, h w bool


@dataclass
class Maps:
    """A row of the picture of features."""

    key: str
    image: np.ndarray  # H W 3 in [0, 1]
    maps: dict[str, FeatureMap]  # by name, such as "hr, stage4"


def feature_maps(trunk: SkySense, dataset: Source, inputs: ModelInput, *, sample: int) -> Maps:
    """Maps of one sample: of each sensor at the last two stages, and the fused one.

    Args:
        trunk: of student or teacher.
        dataset: where the sample lies.
        inputs: how the whole tile is shown. Series are averaged over dates.
        sample: number in the dataset.
    """
    tile = read_whole_tile(dataset, sample, inputs)
    batch = collate([tile], grid=1, classes=len(dataset.classes), problems={})
    maps = {}
    for name, (feature,) in ModelFeatures(trunk, DRAWN).maps(batch).items():
        values, valid = feature.still()  # 1 h w D, 1 h w
        maps[name] = (values[0].cpu(), valid[0].cpu())
    image = tile_colours(dataset, sample, list(inputs.shape.sides))
    return Maps(tile.key, image, maps)


def tile_colours(dataset: Source, sample: int, sensors: Sequence[str]) -> np.ndarray:
    """Colours H W 3 of a tile by the first of some sensors that sees anything: its clearest frame.

    Pale where nothing was seen.

    Raises:
        InputError: the sample cannot be read.
    """
    entry = dataset.entry(sample)
    level = 0
    while level + 1 < hr_levels(entry.members):
        if (HR_PIXELS * entry.cells) >> (level + 1) < SHOWN:
            break
        level += 1
    for name in sensors:
        frames = np.array(entry.usable.get(name, []), np.int64)
        if len(frames) == 0:
            continue
        tile = decode(dataset, sample, {name: frames}, level=level, labels=False)
        picture = tile_picture(tile, name, clearest_frame(tile.valid[name]))
        return paint(name, [picture])[0]
    return np.broadcast_to(INVALID, (entry.cells, entry.cells, 3))


def components(maps: Sequence[FeatureMap]) -> list[np.ndarray]:
    """First three principal components of several maps together, as colours.

    Args:
        maps: (h w D, h w bool) each.

    Returns:
        h w 3 in [0, 1] each: every component from its 2nd to its 98th percentile. Invalid cells are
        pale, and everything is if the features are not finite or do not differ.
    """
    pictures = [np.broadcast_to(INVALID, (*valid.shape, 3)).copy() for _, valid in maps]
    rows = torch.cat([features[valid] for features, valid in maps]).double()  # N D
    if len(rows) < 4 or not rows.isfinite().all():
        return pictures
    mean = rows.mean(0)  # D
    _, values, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    if not values[0] > SAME * rows.norm():
        return pictures
    axes = _with_fixed_sign(directions[:3])  # 3 D
    projected = (rows - mean) @ axes.T  # N 3
    low = torch.quantile(projected, LOW, dim=0)  # 3
    high = torch.quantile(projected, HIGH, dim=0)  # 3
    span = (high - low).clamp(min=1e-12)  # 3
    for picture, (features, valid) in zip(pictures, maps):
        inside = (features[valid].double() - mean) @ axes.T  # n 3
        picture[valid.numpy()] = ((inside - low) / span).clamp(0, 1).numpy()
    return pictures


def _with_fixed_sign(directions: Tensor) -> Tensor:
    """Make the largest entry of each direction positive, as the decomposition leaves signs open."""
    largest = directions.abs().argmax(1, keepdim=True)  # 3 1
    return directions.gather(1, largest).sign() * directions


@dataclass(frozen=True)
class Column:
    """One column of the picture of features."""

    title: str
    samples: Sequence[Maps]
    name: str  # of the map


def draw_features(rows: Sequence[Maps], columns: Sequence[Column]) -> Figure:
    """A row a sample: its picture, then one map for each column."""
    count = 1 + len(columns)
    height = 0.3 + (WIDTH / count - 0.1) * len(rows)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    fill_features(figure, rows, columns)
    return figure


def fill_features(
    figure: Figure | SubFigure, rows: Sequence[Maps], columns: Sequence[Column]
) -> None:
    """Draw what ``draw_features`` draws into a figure or a part of one."""
    axes = figure.subplots(len(rows), 1 + len(columns), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    for axis, row in zip(axes[:, 0], rows):
        axis.imshow(row.image)
        axis.set_ylabel(row.key, fontsize=7.5)
    axes[0, 0].set_title("whole tile")
    for axes_of_column, column in zip(axes.T[1:], columns):
        axes_of_column[0].set_title(column.title)
        maps = [sample.maps[column.name] for sample in column.samples]
        for axis, picture in zip(axes_of_column, components(maps)):
            axis.imshow(picture)
