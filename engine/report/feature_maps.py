"""Pictures of features: maps of a model as colours, by their principal components."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from data.audit.page.painting import INVALID, paint, view_picture
from data.pages.style import WIDTH
from data.stream.collate import collate
from data.stream.cut import cut_sample
from data.stream.mixture import Mixture
from data.stream.sample import CutSample
from data.stream.settings import GLOBAL, DataSettings
from engine.evaluate.features import undistorted, whole_tiles
from engine.report.training_views import clearest_view_frame
from models.features import FUSED
from models.pretraining.model import Pretraining

ZOOM = 2  # how many times as many pixels as a global view the tiles are shown with
STAGES = (3, 4)  # of the backbone, whose maps are drawn
SAME = 1e-6  # spread of features, relative to their size, that counts as none
LOW = 0.02  # quantile that becomes dark
HIGH = 0.98  # quantile that becomes bright
FeatureMap = tuple[Tensor, Tensor]  # h w D, h w bool


@dataclass
class Maps:
    """A row of the picture of features."""

    key: str
    image: np.ndarray  # H W 3 in [0, 1]
    maps: dict[str, FeatureMap]  # by name, such as "hr, stage 4"


@torch.no_grad()
def feature_maps(
    model: Pretraining, dataset: Mixture, settings: DataSettings, *, sample: int, zoom: int
) -> Maps:
    """Maps of one sample: of each sensor at the last two stages, and the fused one.

    Args:
        model: student or teacher.
        dataset: where the sample lies.
        settings: of the run's input.
        sample: number in the dataset.
        zoom: how many times as many pixels as the run's global views the whole tile is shown with.
            Series are averaged over dates.
    """
    settings = undistorted(settings, zoom)
    cut = cut_sample(dataset, settings, seed=0, sample=sample, use=0)
    views = {GLOBAL: whole_tiles(collate(0, [cut], settings))}
    stages = model.trunk.encode(views)[0]
    maps = {}
    for stage in STAGES:
        features = model.trunk.unpack(views, *stages[stage - 1])
        for modality, frames in features[GLOBAL].maps.items():
            valid = features[GLOBAL].valid[modality][0, 0]  # T h w
            maps[f"{modality}, stage {stage}"] = _mean_over_dates(frames[0, 0], valid)
    model.trunk.fuse(views, features)
    fused = features[GLOBAL]
    maps[FUSED] = (fused.maps[FUSED][0, 0, 0].float(), fused.valid[FUSED][0, 0, 0])
    return Maps(cut.draw.key, _picture(cut), maps)


def _mean_over_dates(frames: Tensor, valid: Tensor) -> FeatureMap:
    """Mean of the valid frames: T h w D and T h w bool."""
    total = frames.float().where(valid[..., None], 0.0).sum(0)  # h w D
    mean = total / valid.sum(0).clamp(min=1)[..., None]  # h w D
    return mean, valid.any(0)


def _picture(cut: CutSample) -> np.ndarray:
    """Colours H W 3 of the first sensor that sees anything: its clearest frame."""
    for modality in cut.tile.valid:
        frame = clearest_view_frame(cut, modality)
        if frame is not None:
            picture = view_picture(cut.views[GLOBAL][0], modality, frame)
            return paint(modality, [picture])[0]
    side = cut.tile.cells
    return np.broadcast_to(INVALID, (side, side, 3))


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
    axes = figure.subplots(len(rows), count, squeeze=False)
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
    return figure
