"""Pictures of what a run sees: training views with their correspondences, principal components of features, a map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Polygon, Rectangle
from torch import Tensor

from data.collate import empty_batch
from data.decode import decode
from data.modalities import MODALITIES
from data.order import Order
from data.regions import CELL, COLUMNS, ROWS, WEST, RegionTable, cell_centre
from data.sample import Batch, ViewSet
from data.settings import DataSettings
from data.shards import ShardDataset
from data.stream import cut_sample, draw_series
from engine.figures import WIDTH
from engine.probes import undistorted, whole_tiles
from models.grids import cell_validity
from models.losses.correspondence import match
from models.pretraining import FUSED, Pretraining
from models.spec import CELL_METRES, ModelSpec

TRUE_COLOUR = [2, 1, 0]  # B04, B03, B02
INVALID = np.array([0.93, 0.90, 0.95])  # a pale grey-violet that no land cover has
SEARCHED = 4096  # samples looked through for the kinds to draw
VIEW_COLOURS = ("#e4572e", "#17a398", "#f3a712", "#669bbc", "#a8c686", "#9a6fb0", "#d88c9a", "#8d99ae")
PANELS, WINDOW = 3, 8.0  # zoomed parts of the map, and half their greatest size in degrees


@dataclass(frozen=True)
class Pick:
    """A sample in its first use by the run."""

    sample: int
    use: int
    step: int


def pick(dataset: ShardDataset, seed: int, batch_size: int, kinds: Sequence[tuple[bool, bool]]) -> list[Pick]:
    """The first sample of the run's order of each kind (has hr, has a series) that the dataset holds."""
    order, found = Order(seed, len(dataset), dataset.fingerprint, batch_size), {}
    for position in range(min(len(dataset), SEARCHED)):
        step, slot = divmod(position, batch_size)
        sample, use = order.step(step)[slot]
        has = set(dataset.entry(sample)["modalities"])
        found.setdefault(("hr" in has, bool(has - {"hr"})), Pick(sample, use, step))
        if all(kind in found for kind in kinds):
            break
    return [found[kind] for kind in kinds if kind in found]


def views(dataset: ShardDataset, settings: DataSettings, seed: int, chosen: Pick, spec: ModelSpec) -> Figure:
    """One sample as it entered training: tile, crops of every modality, and which cells meet in the losses."""
    batch = empty_batch(chosen.step, 1, settings)
    cut_sample(dataset, settings, seed, batch, 0, chosen.sample, chosen.use)
    named = [(name, v) for name, group in batch.views.items() for v in range(group.affine.shape[1])]
    named = named[:len(VIEW_COLOURS)]
    present = [name for name in settings.frames if batch.views["global"].valid[name].any()]
    height = max(3.3, 1.35 * len(present) + 0.2)
    figure = Figure(figsize=(WIDTH, height + 2.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(height, 2.2))
    left, right = top.subfigures(1, 2, width_ratios=(3.2, WIDTH - 3.2))
    _tile(left.subplots(), dataset, settings, seed, chosen, batch, named)
    axes = right.subplots(max(1, len(present)), len(named), squeeze=False)
    for row, modality in zip(axes, present):
        for axis, (name, v), shade in zip(row, named, VIEW_COLOURS):
            axis.imshow(crop(batch.views[name], modality, v))
            _frame(axis, shade, name)
            axis.set_title(f"{name} {v + 1}" if row is axes[0] else "", fontsize=8.5)
        row[0].set_ylabel(modality)
    pairs = [(("global", 0), ("global", 1)), (("local", 0), ("global", 0)), (("local", named[-1][1]), ("global", 1))]
    axes = bottom.subplots(1, 3 * len(pairs) - 1, gridspec_kw={"width_ratios": ([1, 1, 0.15] * len(pairs))[:-1]})
    for spare in axes[2::3]:
        spare.set_axis_off()
    for (student, target), one, other in zip(pairs, axes[::3], axes[1::3]):
        _meet(one, other, batch, present[0], student, target, spec, named)
    return figure


def correspondences(batch: Batch, student: tuple[str, int], target: tuple[str, int], spec: ModelSpec
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (n, 2) of a student view's fusion cells, their places (n, 2) in a teacher view, and whether they are
    inside it (n,). Coordinates (u, v) in [0, 1]. Views are named by size and number; sample 0 of the batch."""
    side = fusion_side(batch.views[student[0]], spec)
    affines = [batch.views[name].affine[:1, v:v + 1] for name, v in (student, target)]  # 1 1 2 3
    places, inside = match(*affines, (side, side))  # 1 1 1 h w 2, 1 1 1 h w
    centres = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) + 0.5) / side  # h w 2, u before v
    return centres.reshape(-1, 2), (places.numpy().reshape(-1, 2) + 1) / 2, inside.numpy().ravel()


def fusion_side(views: ViewSet, spec: ModelSpec) -> int:
    """Cells along one side of a view's fusion grid."""
    cells = next(iter(views.valid.values())).shape[-1]
    return max(1, round(cells * CELL_METRES / spec.fusion.cell_metres))


def crop(views: ViewSet, modality: str, v: int) -> np.ndarray:
    """A view of sample 0 as H W 3 in 0..1, the best covered frame of a series; invalid pixels pale."""
    valid = views.valid[modality][0, v]  # T n n
    frame = int(views.valid[modality][0].sum((0, 2, 3)).argmax())  # the same for all views of a size
    sensor = MODALITIES[modality]
    image = views.images[modality][0, v, frame].numpy()  # C H W
    mean, std = (np.array(values)[:, None, None] for values in (sensor.mean, sensor.std))
    pixels = np.kron(valid[frame].numpy(), np.ones((image.shape[-1] // valid.shape[-1],) * 2, bool))  # H W
    return np.where(pixels[..., None], shown(modality, image * std + mean), INVALID)


def shown(modality: str, image: np.ndarray) -> np.ndarray:
    """C H W in the sensor's unit (hr: 0..1, reflectance x 1e4, dB) -> H W 3 in 0..1."""
    if modality == "ms":
        image = np.sqrt(np.clip(image[TRUE_COLOUR], 0, None) / 3000)  # reflectance 0.3 is white
    elif modality == "sar":
        image = np.stack([(image[0] + 20) / 20, (image[1] + 27) / 20, (image[0] - image[1] - 2) / 12])
    return np.clip(image, 0, 1).transpose(1, 2, 0)


def _tile(axis: Axes, dataset: ShardDataset, settings: DataSettings, seed: int, chosen: Pick, batch: Batch,
          named: list[tuple[str, int]]) -> None:
    """The tile with the rectangles of the views; a dot where a view has its top left."""
    entry = dataset.entry(chosen.sample)
    frames = draw_series(entry, settings, seed, chosen.use)
    tile = decode(dataset, chosen.sample, frames)
    if tile.hr is not None:
        image = tile.hr.permute(1, 2, 0).numpy()
    else:
        name = next(iter(tile.series))
        best = int(tile.valid[name].sum((1, 2)).argmax())
        image = np.where(tile.valid[name][best].numpy()[..., None], shown(name, tile.series[name][best].numpy()),
                         INVALID)
    axis.imshow(image, extent=(0, tile.cells, tile.cells, 0))
    for number, ((name, v), shade) in enumerate(zip(named, VIEW_COLOURS), 1):
        corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]) @ batch.views[name].affine[0, v].numpy().T
        corners += number * tile.cells / 250 * np.sign(corners.mean(0) - corners)  # equal edges stay apart
        axis.add_patch(Polygon(corners, fill=False, edgecolor=shade, linewidth=2.2,
                               linestyle="-" if name == "global" else (0, (3, 1.5))))
        axis.plot(*corners[0], "o", color=shade, markersize=5)
    axis.set(xlim=(0, tile.cells), ylim=(tile.cells, 0), xlabel="10 m cells")
    axis.grid(False)
    axis.set_title(f"{entry['key']}\nstep {chosen.step}, tile of {10 * tile.cells} m", fontsize=8.5)


def _meet(one: Axes, other: Axes, batch: Batch, modality: str, student: tuple[str, int], target: tuple[str, int],
          spec: ModelSpec, named: list[tuple[str, int]]) -> None:
    """Two views side by side, dots of one colour and a line where they show the same ground."""
    centres, places, inside = correspondences(batch, student, target, spec)
    for axis, (name, v), role in ((one, student, "student"), (other, target, "teacher")):
        axis.imshow(crop(batch.views[name], modality, v), extent=(0, 1, 1, 0))
        _frame(axis, VIEW_COLOURS[named.index((name, v))], name)
        axis.set_title(f"{role}: {name} {v + 1}", fontsize=8.5)
    for (u, v), place, met in zip(centres, places, inside):
        shade = hsv_to_rgb((0.85 * u, 0.35 + 0.65 * v, 1.0))
        if not met:
            one.plot(u, v, "x", color="#555555", markersize=5)
            continue
        line = ConnectionPatch((u, v), place, one.transData, other.transData, color=shade, linewidth=0.9, alpha=0.75)
        line.set_in_layout(False)
        other.figure.add_artist(line)
        for axis, at in ((one, (u, v)), (other, place)):
            axis.plot(*at, "o", color=shade, markersize=5, markeredgecolor="black", markeredgewidth=0.6)


def _frame(axis: Axes, shade: str, name: str) -> None:
    """No ticks; the view's colour around it, dashed for a local one."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=shade, linewidth=2.5, linestyle="-" if name == "global" else "--")


@dataclass
class Maps:
    """What is beside each other in a row of the picture of features."""

    key: str
    image: np.ndarray  # H W 3 in 0..1
    maps: dict[str, tuple[Tensor, Tensor]]  # what it is -> h w D, h w bool


@torch.no_grad()
def feature_maps(model: Pretraining, dataset: ShardDataset, settings: DataSettings, sample: int, cells: int) -> Maps:
    """Maps of one whole tile, resampled to ``cells`` x ``cells``: each modality's last two stages (of a series the
    mean over dates), and the fused one."""
    still = undistorted(settings, cells)
    batch = empty_batch(0, 1, still)
    cut_sample(dataset, still, 0, batch, 0, sample, 0)
    inputs = whole_tiles(batch)
    stages = []
    hook = model.trunk.backbone.register_forward_hook(lambda module, given, output: stages.extend(output[0][-2:]))
    try:
        fused = model.trunk({"global": inputs})[0]["global"]
    finally:
        hook.remove()
    maps = {}
    for number, (x, layout) in zip((3, 4), stages):
        for part, group in zip(layout.split(x), layout.groups):
            valid = cell_validity(inputs.valid[group.modality][0, 0], group.height)  # T h w
            features = part.unflatten(1, (group.height, group.width)).float()  # T h w D
            total = features.where(valid[..., None], 0.0).sum(0)  # h w D
            mean = total / valid.sum(0).clamp(min=1)[..., None]  # h w D
            maps[f"{group.modality}, stage {number}"] = (mean, valid.any(0))
    maps[FUSED] = (fused.maps[FUSED][0, 0, 0].float(), fused.valid[FUSED][0, 0, 0])
    modality = next(name for name, valid in inputs.valid.items() if valid.any())
    whole = replace(batch.views["global"], valid={name: x[:, :1] for name, x in inputs.valid.items()})
    return Maps(batch.keys[0], crop(whole, modality, 0), maps)


def components(parts: Sequence[tuple[Tensor, Tensor]]) -> list[np.ndarray]:
    """First three principal components of several maps together, as colours.

    Parts of (h w D, h w bool) -> h w 3 in 0..1 each, a component's 2nd to 98th percentile over its range; invalid
    cells, and everything if the features are not finite or do not differ, are pale."""
    rows = torch.cat([maps[valid] for maps, valid in parts]).double()  # N D
    pale = [np.broadcast_to(INVALID, (*valid.shape, 3)).copy() for _, valid in parts]
    if len(rows) < 4 or not rows.isfinite().all():
        return pale
    mean = rows.mean(0)
    _, values, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    signs = directions[:3].gather(1, directions[:3].abs().argmax(1, keepdim=True)).sign()  # 3 1: sign is arbitrary
    projected = (rows - mean) @ (signs * directions[:3]).T  # N 3
    low, high = (torch.quantile(projected, q, dim=0) for q in (0.02, 0.98))
    if not values[0] > 1e-6 * rows.norm():
        return pale
    for picture, (maps, valid) in zip(pale, parts):
        inside = (maps[valid].double() - mean) @ (signs * directions[:3]).T  # n 3
        picture[valid.numpy()] = ((inside - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).numpy()
    return pale


def feature_pictures(rows: Sequence[Maps], columns: Sequence[tuple[str, Sequence[Maps], str]]) -> Figure:
    """A row a sample: its picture, then one column for each (title, maps of the samples, name of the map)."""
    figure = Figure(figsize=(WIDTH, 0.35 + (WIDTH / (1 + len(columns)) + 0.15) * len(rows)), layout="constrained")
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
        for axis, picture in zip(column, components([sample.maps[name] for sample in samples])):
            axis.imshow(picture)
    return figure


def region_map(regions: RegionTable, counts: Sequence[int], places: np.ndarray) -> Figure:
    """The world with the occupied regions, and up to three parts of it enlarged.

    ``counts``: samples of each region; ``places`` (n, 2): lon and lat of samples in degrees."""
    centres = np.array([cell_centre(cell) for cell in regions.cells])  # R 2
    windows = _windows(centres, np.array(counts))
    figure = Figure(figsize=(WIDTH, 4.6 + 4.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(4.6, 4.2))
    world = top.subplots()
    world.scatter(*centres.T, s=22 + 60 * np.sqrt(np.array(counts) / max(counts)), marker="s", color="#d1495b",
                  alpha=0.75, linewidths=0)
    world.set(xlim=(-180, 180), ylim=(-90, 90), xticks=range(-180, 181, 30), yticks=range(-90, 91, 30), aspect="equal",
              xlabel="longitude", ylabel="latitude", title=f"{len(regions)} occupied regions, {sum(counts)} samples")
    for axis, (letter, members) in zip(np.atleast_1d(bottom.subplots(1, len(windows))), zip("ABC", windows)):
        box = _zoom(axis, regions, counts, places, members)
        axis.set_title(f"{letter}: {len(members)} regions, {sum(counts[i] for i in members)} samples")
        world.add_patch(Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, edgecolor="#37474f"))
        world.annotate(letter, (box[2], box[3]), (3, 0), textcoords="offset points", fontsize=10, weight="bold")
    return figure


def _windows(centres: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Regions that lie together, the fullest windows first."""
    near = np.abs(centres[:, None] - centres[None]).max(-1) <= WINDOW  # R R
    left, found = np.ones(len(centres), bool), []
    while left.any() and len(found) < PANELS:
        middle = int(((near & left) * counts).sum(1).argmax())
        found.append(np.flatnonzero(near[middle] & left).tolist())
        left &= ~near[middle]
    return found


def _zoom(axis: Axes, regions: RegionTable, counts: Sequence[int], places: np.ndarray, members: list[int]
          ) -> tuple[float, float, float, float]:
    """Outlines of some regions, their number of samples, and the samples as dots; returns the part of the world."""
    boxes = np.array([cell_box(regions.cells[i]) for i in members])  # n 4
    west, south, east, north = *boxes[:, :2].min(0), *boxes[:, 2:].max(0)
    for i, box in zip(members, boxes):
        axis.add_patch(Rectangle(box[:2], *(box[2:] - box[:2]), facecolor="#f6d9dc", edgecolor="#d1495b"))
        if len(members) <= 80:
            axis.annotate(str(counts[i]), (box[0], box[3]), (2, -2), textcoords="offset points", va="top", fontsize=7.5)
    axis.plot(*places.T, ".", color="#233d4d", markersize=4)
    middle, across = (south + north) / 2, math.cos(math.radians((south + north) / 2))
    half = 1.1 * max((east - west) / 2 * across, (north - south) / 2, 0.8)  # degrees of latitude
    axis.set(xlim=((west + east) / 2 - half / across, (west + east) / 2 + half / across),
             ylim=(middle - half, middle + half), aspect=1 / across, xlabel="longitude", ylabel="latitude")
    return (*(axis.get_xlim()[0], axis.get_ylim()[0]), *(axis.get_xlim()[1], axis.get_ylim()[1]))


def cell_box(cell: int) -> tuple[float, float, float, float]:
    """West, south, east, north of a grid cell in degrees.

    Longitudes are exact; latitudes lie half way between the centres of neighbours, off by less than a kilometre up to
    80 degrees."""
    row, column = divmod(cell, COLUMNS)
    width = 180 * CELL / -WEST  # degrees: the projection is cylindrical
    lats = [cell_centre(other * COLUMNS)[1] for other in (max(row - 1, 0), row, min(row + 1, ROWS - 1))]
    south, north = (lats[1] + lats[2]) / 2, (lats[1] + lats[0]) / 2
    return column * width - 180, max(south, -90.0), (column + 1) * width - 180, min(north, 90.0)
