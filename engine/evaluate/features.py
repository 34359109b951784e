"""Features of whole tiles: what a model, or plain pixels, say of each tile and of its cells."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.evaluate.tiles import TileBatch, Tiles
from models.features import FUSED, Features, Views, pooled
from models.fusion.grids import to_grid
from models.skysense import SkySense

STAGE_3 = "stage3"
STAGE_4 = "stage4"
EACH_STAGE = ("stage1", "stage2", STAGE_3, STAGE_4)
STAGES = "stages"  # all of them side by side
UNNORMED = "stage4_unnormed"  # what enters the backbone's last norm
FEATURES = (STAGE_3, STAGE_4, UNNORMED, STAGES, FUSED)
_SIZE = "tile"  # the one view size of a call


@dataclass
class Described:
    """What is said of the tiles of a batch."""

    vectors: dict[str, Tensor] = field(default_factory=dict)  # name -> B D
    present: dict[str, Tensor] = field(default_factory=dict)  # name -> B bool; vectors are 0 else
    cells: dict[str, Tensor] = field(default_factory=dict)  # name -> B g g D

    def add(self, name: str, vector: Tensor, present: Tensor, cells: Tensor | None) -> None:
        """Keep one feature, on the host."""
        self.vectors[name] = vector.float().cpu()
        self.present[name] = present.cpu()
        if cells is not None:
            self.cells[name] = cells.float().cpu()

    def first(self, count: int) -> "Described":
        """The first tiles alone."""
        return Described(
            vectors={name: rows[:count] for name, rows in self.vectors.items()},
            present={name: rows[:count] for name, rows in self.present.items()},
            cells={name: rows[:count] for name, rows in self.cells.items()},
        )


Describe = Callable[[TileBatch], Described]


@dataclass(frozen=True)
class Maps:
    """One feature of the tiles of a batch, before it is averaged."""

    values: Tensor  # B T h w D
    valid: Tensor  # B T h w bool

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Mean over valid cells and frames, B D float32, and whether anything is valid, B bool."""
        features = Features({_SIZE: self.values[:, None]}, {_SIZE: self.valid[:, None]})
        return pooled(features, _SIZE)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation over valid cells and frames, and whether anything is valid, B bool.

        Each is of length one, as their units differ: B 2D float32.
        """
        mean, present = self.vectors()  # B D, B
        offset = self.values.float() - mean[:, None, None, None]  # B T h w D
        square = Maps(offset.square(), self.valid)
        variance, _ = square.vectors()  # B D
        return _side_by_side([mean, variance.sqrt()]), present

    def still(self) -> tuple[Tensor, Tensor]:
        """Mean over the valid frames: B h w D, and B h w bool, whether there is one."""
        total = self.values.where(self.valid[..., None], 0.0).sum(1)  # B h w D
        return total / self.valid.sum(1).clamp(min=1)[..., None], self.valid.any(1)

    def on_grid(self, grid: int) -> Tensor:
        """Mean over the valid frames on a grid of cells: B g g D, zero where nothing is valid."""
        maps, masks = to_grid(
            self.values.flatten(0, 1), self.valid.flatten(0, 1), (grid, grid)
        )  # BT g g D, BT g g
        tiles = self.values.shape[:2]
        total = maps.unflatten(0, tiles).sum(1)  # B g g D, invalid cells are zero
        seen = masks.unflatten(0, tiles).sum(1)  # B g g
        return total / seen.clamp(min=1)[..., None]


class ModelFeatures:
    """Describes tiles by a model.

    Names are those of ``FEATURES``, with the sensor before all but the fused one.
    """

    def __init__(
        self,
        trunk: SkySense,
        features: Sequence[str] = FEATURES,
        *,
        grid: int | None = None,
        deviation: bool = False,
    ):
        """Take a model in eval mode.

        Args:
            trunk: the model.
            features: of ``FEATURES``; the fused one is left out if the model has no fusion.
            grid: g of the cells; None: vectors alone.
            deviation: vectors are mean and deviation over the cells, not the mean alone.
        """
        self.trunk = trunk
        self.features = features
        self.grid = grid
        self.deviation = deviation

    def __call__(self, batch: TileBatch) -> Described:
        """Describe the tiles of a batch."""
        described = Described()
        for name, maps in self.maps(batch).items():
            vectors = [self._vectors(stage) for stage in maps]
            cells = None
            if self.grid is not None:
                cells = _side_by_side([stage.on_grid(self.grid) for stage in maps])
            vector = _side_by_side([values for values, _ in vectors])
            described.add(name, vector, vectors[0][1], cells)
        return described

    def _vectors(self, maps: Maps) -> tuple[Tensor, Tensor]:
        """The vectors of a feature, B D, and whether anything is valid, B bool."""
        if self.deviation:
            return maps.moments()
        return maps.vectors()

    @torch.no_grad()
    def maps(self, batch: TileBatch) -> dict[str, list[Maps]]:
        """The features of a batch by name; ``STAGES`` has a map for each stage, others one."""
        parameter = next(self.trunk.parameters())
        batch = batch.to(parameter.device, parameter.dtype)
        views = {_SIZE: views_of(batch)}
        with inputs_of(self.trunk.backbone.norm) as unnormed:
            stages = self.trunk.encode(views)[0]
        _, layout = stages[-1]
        outputs = dict(zip(EACH_STAGE, stages, strict=True))
        outputs[UNNORMED] = (unnormed[0], layout)
        maps: dict[str, list[Maps]] = {}
        for feature in self.features:
            for name in EACH_STAGE if feature == STAGES else (feature,):
                if name in outputs:
                    by_sensor = self.trunk.unpack(views, *outputs[name])[_SIZE]
                    for sensor in by_sensor.maps:
                        of_sensor = maps.setdefault(f"{sensor}, {feature}", [])
                        of_sensor.append(_first_view(by_sensor, sensor))
        if FUSED in self.features and self.trunk.fusion is not None:
            last = self.trunk.unpack(views, *stages[-1])
            self.trunk.fuse(views, last)
            maps[FUSED] = [_first_view(last[_SIZE], FUSED)]
        return maps


def _first_view(features: Features, source: str) -> Maps:
    """A feature of the one view of each tile."""
    return Maps(features.maps[source][:, 0].float(), features.valid[source][:, 0])


def views_of(batch: TileBatch) -> Views:
    """A batch as the one view of each tile that a trunk takes."""
    return Views(
        images={name: x[:, None] for name, x in batch.images.items()},  # B 1 T C H W
        valid={name: mask[:, None] for name, mask in batch.valid.items()},  # B 1 T H W
        days={name: days[:, None] for name, days in batch.days.items()},  # B 1 T
        region=batch.region,
    )


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs that a module gets while the block runs, one a call."""
    inputs: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        yield inputs
    finally:
        handle.remove()


@dataclass(frozen=True)
class Extracted:
    """Features of S tiles, each once, in the order of the samples."""

    keys: list[str]
    vectors: dict[str, Tensor]  # name -> S D
    present: dict[str, Tensor]  # name -> S bool
    cells: dict[str, Tensor]  # name -> S g g D; empty where no cells were wanted
    labels: Tensor  # S g g int64, NO_LABEL where there is none
    problems: dict[int, str]  # samples that could not be read, which are left out


def extract(
    tiles: Tiles, describe: Describe, progress: Callable[[int, int], None] | None = None
) -> Extracted:
    """Describe every tile once, in batches of one shape.

    Only the features stay in memory.

    Args:
        tiles: what to describe.
        describe: what says something of a batch.
        progress: takes the number of tiles so far, and that of all.
    """
    batches: list[Described] = []
    keys: list[str] = []
    labels = []
    problems: dict[int, str] = {}
    for batch in tiles:
        problems.update(batch.problems)
        count = sum(1 for key in batch.keys if key)
        described = describe(batch)
        batches.append(described.first(count))
        keys += batch.keys[:count]
        labels.append(batch.labels[:count])
        if progress is not None:
            progress(len(keys) + len(problems), len(tiles.samples))
    return Extracted(
        keys=keys,
        vectors=_joined([described.vectors for described in batches]),
        present=_joined([described.present for described in batches]),
        cells=_joined([described.cells for described in batches]),
        labels=torch.cat(labels),
        problems=problems,
    )


def joined(parts: Sequence[Extracted]) -> Extracted:
    """What several ranks extracted, in the order of the keys, whatever the number of ranks."""
    keys: list[str] = []
    for part in parts:
        keys += part.keys
    order = sorted(range(len(keys)), key=lambda number: keys[number])
    problems: dict[int, str] = {}
    for part in parts:
        problems.update(part.problems)
    return Extracted(
        keys=[keys[number] for number in order],
        vectors=_ordered(_joined([part.vectors for part in parts]), order),
        present=_ordered(_joined([part.present for part in parts]), order),
        cells=_ordered(_joined([part.cells for part in parts]), order),
        labels=torch.cat([part.labels for part in parts])[order],
        problems=problems,
    )


def _ordered(tensors: dict[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
    """Name -> rows in another order."""
    return {name: tensor[order] for name, tensor in tensors.items()}


def _joined(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Name -> the rows of all batches."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def combined(extracted: Extracted, feature: str) -> tuple[Tensor | None, Tensor | None]:
    """A feature of all sensors side by side, each of length one if there are several.

    Args:
        extracted: by a model.
        feature: of ``FEATURES``.

    Returns:
        Vectors (S, D) and cells (S, g, g, D); None for what was not extracted.
    """
    names = [name for name in extracted.vectors if name.partition(", ")[2] == feature]
    if feature in extracted.vectors:  # the fused one has no sensor
        names = [feature]
    if not names:
        return None, None
    vectors = _side_by_side([extracted.vectors[name] for name in names])
    cells = None
    if names[0] in extracted.cells:
        cells = _side_by_side([extracted.cells[name] for name in names])
    return vectors, cells


def _side_by_side(sensors: Sequence[Tensor]) -> Tensor:
    """Features (..., D) of each sensor as one."""
    if len(sensors) == 1:
        return sensors[0]
    return torch.cat([F.normalize(features, dim=-1) for features in sensors], -1)
