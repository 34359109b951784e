"""Pictures of what a run sees: training views with their correspondences, principal components of
features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Polygon
from torch import Tensor

from data.pages.style import WIDTH
from data.stream.collate import collate
from data.stream.cut import cut_sample
from data.stream.decode import Decoded
from data.stream.mixture import Mixture
from data.stream.order import Order
from data.stream.sample import Batch, ViewSet
from data.stream.settings import DataSettings
from data.tiles.modalities import MODALITIES
from engine.evaluate.probes import undistorted, whole_tiles
from models.features import FUSED
from models.fusion.grids import cell_validity
from models.pretraining.losses.correspondence import match, sample
from models.pretraining.model import Pretraining
from models.spec import CELL_METRES, ModelSpec

TRUE_COLOUR = [2, 1, 0]  # B04, B03, B02
INVALID = np.array([0.93, 0.90, 0.95])  # a pale grey-violet that no land cover has
LEAST_SPAN = {"ms": 400.0, "sar": 4.0}  # of a stretch: reflectance x 1e4, dB
SEARCHED = 4096  # samples looked through for the kinds to draw
VIEW_COLOURS = (
    "#e4572e",
    "#17a398",
    "#f3a712",
    "#669bbc",
    "#a8c686",
    "#9a6fb0",
    "#d88c9a",
    "#8d99ae",
)
SHOWN = {"global": 2, "local": 6}  # at most, as many as there are colours


@dataclass(frozen=True)
class Pick:
    """A sample in its first use by the run."""

    sample: int
    use: int
    step: int


def pick(
    dataset: Mixture, seed: int, batch_size: int, kinds: Sequence[tuple[bool, bool]]
) -> list[Pick]:
    """The first sample of the run's order of each kind (has hr, has a series) that the dataset
    holds."""
    order, found = Order(seed, dataset.parts, batch_size), {}
    for position in range(min(len(dataset), SEARCHED)):
        step, slot = divmod(position, batch_size)
        sample, use = order.step(step)[slot]
        has = set(dataset.entry(sample)["modalities"])
        found.setdefault(("hr" in has, bool(has - {"hr"})), Pick(sample, use, step))
        if all(kind in found for kind in kinds):
            break
    return [found[kind] for kind in kinds if kind in found]


def views(
    dataset: Mixture, settings: DataSettings, seed: int, chosen: Pick, spec: ModelSpec
) -> Figure:
    """One sample as it entered training: tile, crops of every modality, and which cells meet in the
    losses."""
    cut = cut_sample(dataset, settings, seed=seed, sample=chosen.sample, use=chosen.use)
    batch = collate(chosen.step, [cut], settings)
    named = [
        (name, v)
        for name, most in SHOWN.items()
        for v in range(min(most, batch.views[name].affine.shape[1]))
    ]
    shades = dict(zip(named, VIEW_COLOURS))
    frames = {name: best_frame(batch.views["global"], name) for name in settings.frames}
    crops = {
        name: dict(
            zip(named, paint(name, [crop(batch.views[size], name, v, frame) for size, v in named]))
        )
        for name, frame in frames.items()
        if frame is not None
    }
    heights = (max(2.9, 1.12 * len(crops) + 0.3), 2.1)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    left, right = top.subfigures(1, 2, width_ratios=(3, WIDTH - 3))
    _tile(left.subplots(), cut.tile, chosen, batch, shades)
    axes = right.subplots(max(1, len(crops)), len(named), squeeze=False)
    for row, (modality, painted) in enumerate(crops.items()):
        for axis, (view, image) in zip(axes[row], painted.items()):
            axis.imshow(image)
            _frame(axis, shades[view])
            axis.set_title(f"{view[0]} {view[1] + 1}" if row == 0 else "", fontsize=8.5)
        axes[row, 0].set_ylabel(modality)
    pairs = [
        (("global", 0), ("global", 1)),
        (("local", 0), ("global", 0)),
        (named[-1], ("global", 1)),
    ]
    axes = bottom.subplots(
        1, 3 * len(pairs) - 1, gridspec_kw={"width_ratios": ([1, 1, 0.15] * len(pairs))[:-1]}
    )
    for spare in axes[2::3]:
        spare.set_axis_off()
    for (student, target), one, other in zip(pairs, axes[::3], axes[1::3]):
        for axis, view, role in ((one, student, "student"), (other, target, "teacher")):
            axis.imshow(next(iter(crops.values()))[view], extent=(0, 1, 1, 0))
            _frame(axis, shades[view])
            axis.set_title(f"{role}: {view[0]} {view[1] + 1}", fontsize=8.5)
        _join(one, other, *correspondences(batch, student, target, spec))
    return figure


def correspondences(
    batch: Batch, student: tuple[str, int], target: tuple[str, int], spec: ModelSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (n, 2) of a student view's fusion cells, their places (n, 2) in a teacher view, and
    whether the two meet in the pixel loss (n,). Coordinates (u, v) in [0, 1]. Views are named by
    size and number; sample 0 of the batch."""
    (affine, seen), (teacher_affine, teacher_seen) = (
        (batch.views[size].affine[:1, v : v + 1], _seen(batch.views[size], v, spec))
        for size, v in (student, target)
    )
    side = len(seen)
    places = match(affine, teacher_affine, (side, side))
    _, met = sample(
        teacher_seen[None, None, None, ..., None].float(), teacher_seen[None, None, None], places
    )
    met = met[0, 0, 0, 0] & seen  # h w
    centres = (
        np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) + 0.5
    ) / side  # h w 2, u before v
    return (
        centres.reshape(-1, 2),
        (places.coords.numpy().reshape(-1, 2) + 1) / 2,
        met.numpy().ravel(),
    )


def _seen(views: ViewSet, v: int, spec: ModelSpec) -> Tensor:
    """Fusion cells of a view of sample 0 with anything valid: (h, w) bool. As the fused map has it,
    but for the grids that a modality's features pass on the way."""
    cells = next(iter(views.valid.values())).shape[-1]
    side = max(1, round(cells * CELL_METRES / spec.fusion.cell_metres))
    return torch.stack(
        [cell_validity(valid[0, v], (side, side)).any(0) for valid in views.valid.values()]
    ).any(0)


def best_frame(views: ViewSet, modality: str) -> int | None:
    """The frame of sample 0 with most valid cells, None without any."""
    cells = views.valid[modality][0].sum((0, 2, 3))  # T
    return int(cells.argmax()) if cells.any() else None


def crop(views: ViewSet, modality: str, v: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """A view of sample 0: C H W in the sensor's unit (hr: 0..1), and its valid pixels H W."""
    sensor, image = MODALITIES[modality], views.images[modality][0, v, frame].numpy()  # C H W
    mean, std = (np.array(values)[:, None, None] for values in (sensor.mean, sensor.std))
    valid = views.valid[modality][0, v, frame].numpy()  # n n
    return image * std + mean, np.kron(valid, np.ones((image.shape[-1] // len(valid),) * 2, bool))


def paint(modality: str, images: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """(C H W in the sensor's unit, H W valid) -> H W 3 in 0..1. Series are stretched, all images of
    the list alike, to their 2nd to 98th percentile; red, green, blue of SAR are VV, VH and their
    difference. Invalid pixels are pale."""
    if modality == "sar":
        images = [
            (np.stack([image[0], image[1], image[0] - image[1]]), valid) for image, valid in images
        ]
    elif modality == "ms":
        images = [(image[TRUE_COLOUR], valid) for image, valid in images]
    low, high = np.zeros(3), np.ones(3)
    if modality in LEAST_SPAN:
        pixels = np.concatenate([image[:, valid] for image, valid in images], 1)  # 3 n
        low, high = np.percentile(pixels, (2, 98), axis=1) if pixels.size else (low, high)
        span = max(
            (high - low).max(), LEAST_SPAN[modality]
        )  # one for all channels: else grey turns into colours
        middle = (low + high) / 2
        low, high = middle - span / 2, middle + span / 2
    return [
        np.where(
            valid[..., None],
            np.clip((image.transpose(1, 2, 0) - low) / (high - low), 0, 1),
            INVALID,
        )
        for image, valid in images
    ]


def _tile(
    axis: Axes,
    tile: Decoded,
    chosen: Pick,
    batch: Batch,
    shades: dict[tuple[str, int], str],
) -> None:
    """The tile with the rectangles of the views; a dot where a view has its top left."""
    if tile.hr is not None:
        image = tile.hr.permute(1, 2, 0).numpy()
    else:
        name = next(iter(tile.series))
        best = int(tile.valid[name].sum((1, 2)).argmax())
        (image,) = paint(name, [(tile.series[name][best].numpy(), tile.valid[name][best].numpy())])
    axis.imshow(image, extent=(0, tile.cells, tile.cells, 0))
    for number, ((name, v), shade) in enumerate(shades.items(), 1):
        corners = (
            np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
            @ batch.views[name].affine[0, v].numpy().T
        )
        corners += (
            number * tile.cells / 250 * np.sign(corners.mean(0) - corners)
        )  # equal edges stay apart
        axis.add_patch(
            Polygon(
                corners,
                fill=False,
                edgecolor=shade,
                linewidth=2.2,
                linestyle="-" if name == "global" else (0, (3, 1.5)),
            )
        )
        axis.plot(*corners[0], "o", color=shade, markersize=5, clip_on=False)
    axis.set(xlim=(0, tile.cells), ylim=(tile.cells, 0), xlabel="10 m cells")
    axis.grid(False)
    axis.set_title(
        f"{batch.keys[0]}\nstep {chosen.step}, tile of {10 * tile.cells} m", fontsize=8.5
    )


def _join(one: Axes, other: Axes, centres: np.ndarray, places: np.ndarray, met: np.ndarray) -> None:
    """Dots of one colour and a line where two views show the same ground; a cross where the teacher
    sees nothing."""
    for (u, v), place, meets in zip(centres, places, met):
        shade = hsv_to_rgb((0.85 * u, 0.35 + 0.65 * v, 1.0))
        if not meets:
            one.plot(
                u, v, "X", color="white", markersize=6, markeredgecolor="black", markeredgewidth=0.6
            )
            continue
        line = ConnectionPatch(
            (u, v), place, one.transData, other.transData, color=shade, linewidth=1.1
        )
        line.set_in_layout(False)
        other.figure.add_artist(line)
        for axis, at in ((one, (u, v)), (other, place)):
            axis.plot(
                *at, "o", color=shade, markersize=5.5, markeredgecolor="black", markeredgewidth=0.6
            )


def _frame(axis: Axes, shade: str) -> None:
    """No ticks; the view's colour around it."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=shade, linewidth=2.5)


@dataclass
class Maps:
    """What is beside each other in a row of the picture of features."""

    key: str
    image: np.ndarray  # H W 3 in 0..1
    maps: dict[str, tuple[Tensor, Tensor]]  # what it is -> h w D, h w bool


@torch.no_grad()
def feature_maps(
    model: Pretraining, dataset: Mixture, settings: DataSettings, number: int, cells: int
) -> Maps:
    """Maps of sample ``number``, its whole tile resampled to ``cells`` x ``cells``: each modality's
    last two stages (of a series the mean over dates), and the fused one."""
    still = undistorted(settings, cells)
    batch = collate(0, [cut_sample(dataset, still, seed=0, sample=number, use=0)], still)
    inputs = whole_tiles(batch)
    views = {"global": inputs}
    stages = model.trunk.encode(views)[0]
    maps = {}
    for stage in (3, 4):
        features = model.trunk.unpack(views, *stages[stage - 1])
        for modality, found in features["global"].maps.items():
            valid = features["global"].valid[modality][0, 0]  # T h w
            total = found[0, 0].float().where(valid[..., None], 0.0).sum(0)  # h w D
            mean = total / valid.sum(0).clamp(min=1)[..., None]  # h w D
            maps[f"{modality}, stage {stage}"] = (mean, valid.any(0))
    model.trunk.fuse(views, features)
    fused = features["global"]
    maps[FUSED] = (fused.maps[FUSED][0, 0, 0].float(), fused.valid[FUSED][0, 0, 0])
    whole = batch.views["global"]
    modality = next(name for name, valid in inputs.valid.items() if valid.any())
    (image,) = paint(modality, [crop(whole, modality, 0, best_frame(whole, modality))])
    return Maps(batch.keys[0], image, maps)


def components(parts: Sequence[tuple[Tensor, Tensor]]) -> list[np.ndarray]:
    """First three principal components of several maps together, as colours.

    Parts of (h w D, h w bool) -> h w 3 in 0..1 each, a component's 2nd to 98th percentile over its
    range; invalid cells, and everything if the features are not finite or do not differ, are pale.
    """
    rows = torch.cat([maps[valid] for maps, valid in parts]).double()  # N D
    pale = [np.broadcast_to(INVALID, (*valid.shape, 3)).copy() for _, valid in parts]
    if len(rows) < 4 or not rows.isfinite().all():
        return pale
    mean = rows.mean(0)
    _, values, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    signs = (
        directions[:3].gather(1, directions[:3].abs().argmax(1, keepdim=True)).sign()
    )  # 3 1: sign is arbitrary
    projected = (rows - mean) @ (signs * directions[:3]).T  # N 3
    low, high = (torch.quantile(projected, q, dim=0) for q in (0.02, 0.98))
    if not values[0] > 1e-6 * rows.norm():
        return pale
    for picture, (maps, valid) in zip(pale, parts):
        inside = (maps[valid].double() - mean) @ (signs * directions[:3]).T  # n 3
        picture[valid.numpy()] = (
            ((inside - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).numpy()
        )
    return pale


def feature_pictures(
    rows: Sequence[Maps], columns: Sequence[tuple[str, Sequence[Maps], str]]
) -> Figure:
    """A row a sample: its picture, then one column for each (title, maps of the samples, name of
    the map)."""
    figure = Figure(
        figsize=(WIDTH, 0.3 + (WIDTH / (1 + len(columns)) - 0.1) * len(rows)), layout="constrained"
    )
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
    for column, (title, samples, name) in zip(axes.T[1:], columns):
        column[0].set_title(title)
        for axis, picture in zip(column, components([one.maps[name] for one in samples])):
            axis.imshow(picture)
    return figure
