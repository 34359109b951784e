"""Held-out tiles that a run looks at every so many steps: effective ranks, and k-NN if labelled."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.tiles.regions import RegionTable
from engine.config.settings import Settings
from engine.distributed.collectives import collect
from engine.evaluate.features import (
    STAGE_3,
    STAGE_4,
    Extracted,
    ModelFeatures,
    combined,
    extract,
    joined,
)
from engine.evaluate.figures import effective_ranks, first_measure
from engine.evaluate.items import Items
from engine.evaluate.labelled import Labelled, common_sensors
from engine.evaluate.run_input import run_tiles, view_input
from engine.evaluate.tiles import Tiles
from models.features import FUSED
from models.skysense import SkySense

FEATURES = (STAGE_3, STAGE_4, FUSED)
NEIGHBOURS = 20
BATCH = 4  # tiles a rank: as a step of training would have them
RANK_KEY = "evaluate/effective_rank/"
KNN_KEY = "evaluate/knn/"
STEPS_KEY = "evaluate/steps"  # updates that the teacher has had


@dataclass(frozen=True)
class HeldOut:
    """The tiles, opened on one rank."""

    labelled: Labelled
    tiles: Tiles  # this rank's

    @classmethod
    def open(
        cls, settings: Settings, regions: RegionTable, *, rank: int, world_size: int
    ) -> "HeldOut":
        """Open the tiles of ``skysense.evaluate``.

        Every rank has as many batches as the others, whatever the number of tiles.

        Args:
            settings: of the run.
            regions: of the run's dataset.
            rank: of this process.
            world_size: number of ranks.

        Raises:
            InputError: shards or labels are missing or wrong, or have no sensor of the model.
        """
        dataset = ShardDataset.open(settings.evaluate.shards, settings.data.store)
        path = None
        if settings.evaluate.labels:
            path = Path(settings.evaluate.labels)
        labelled = Labelled.of(dataset, path).thinned(settings.evaluate.samples)
        spec = settings.model
        if not common_sensors(spec, labelled):
            raise InputError(
                f"{dataset.path}: expected tiles with some of {', '.join(spec.modalities)}, found "
                f"{', '.join(sorted(labelled.sensors()))}; correct skysense.evaluate.shards"
            )
        samples = labelled.samples
        inputs = view_input(spec, settings.data.views, regions)
        tiles = replace(
            run_tiles(dataset, spec, inputs, limit=len(samples)),
            samples=samples[rank::world_size],
            batch_size=BATCH,
            batches=-(-len(samples) // (BATCH * world_size)),
        )
        return cls(labelled, tiles)

    def measure(self, trunk: SkySense) -> dict[str, float]:
        """Figures of a model by their keys in the metrics; every rank must call it.

        Raises:
            InputError: no tile can be read.
            RankError: another fault on some rank; raised on all of them.
        """
        describe = ModelFeatures(trunk, FEATURES, grid=self._grid)
        extracted = joined(collect(lambda: extract(self.tiles, describe)))
        if not extracted.keys:
            raise InputError(next(iter(extracted.problems.values())))
        figures = {}
        for name, rank in effective_ranks(extracted).items():
            figures[RANK_KEY + name] = not_finite(rank)
        items = self._items(extracted)
        if items is None:
            return figures
        for feature in FEATURES:
            vectors, cells = combined(extracted, feature)
            if vectors is not None:
                rows = items.rows(vectors, cells)  # N D
                figures[KNN_KEY + feature] = first_measure(rows, items, NEIGHBOURS)
        return figures

    @property
    def _grid(self) -> int | None:
        """The cells that are classified; None: tiles are."""
        if self.labelled.labels is None:
            return self.tiles.grid
        return None

    def _items(self, extracted: Extracted) -> Items | None:
        """What is classified; None if there are fewer than two groups with labels."""
        if self.labelled.labels is None and not (extracted.labels >= 0).any():
            return None
        items = self.labelled.items(extracted)
        if len(items.groups.unique()) < 2:
            return None
        return items


def not_finite(rank: float | None) -> float:
    """A rank as a number, NaN without one."""
    if rank is None:
        return float("nan")
    return rank


def summary(figures: Mapping[str, float]) -> str:
    """The figures in one line."""
    parts = []
    for key, value in figures.items():
        if key.startswith(KNN_KEY):
            parts.append(f"{NEIGHBOURS}-NN {key.removeprefix(KNN_KEY)} {100 * value:.1f} %")
        else:
            parts.append(f"rank {key.removeprefix(RANK_KEY)} {value:.2f}")
    return ", ".join(parts)
