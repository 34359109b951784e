"""Samples of a dataset that have labels, with their parts, groups and sensors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError
from data.stream.decode import Source
from data.tiles.splits import TRAIN
from engine.evaluate.features import Extracted
from engine.evaluate.items import Items, cell_items, tile_items
from engine.evaluate.labels import Labels, read_labels
from models.spec import ModelSpec


@dataclass(frozen=True)
class Labelled:
    """Some samples of a dataset."""

    dataset: Source
    samples: list[int]
    labels: Labels | None  # of the tiles; None: the cells have those of the shards

    @classmethod
    def of(cls, dataset: Source, labels: Path | None) -> "Labelled":
        """All samples that a file has a line for; without a file all.

        Raises:
            InputError: the file is wrong, or has no line for any sample.
        """
        samples = list(range(len(dataset)))
        if labels is None:
            return cls(dataset, samples, None)
        of_tiles = read_labels(labels)
        known = [sample for sample in samples if dataset.entry(sample).key in of_tiles.of]
        if not known:
            raise InputError(
                f"{labels}: expected keys of {dataset.path}, such as {dataset.entry(0).key!r}, "
                f"found {next(iter(of_tiles.of))!r}; write the tiles' keys into the column 'key'"
            )
        return cls(dataset, known, of_tiles)

    def thinned(self, count: int | None) -> "Labelled":
        """Some of the samples, evenly spaced; None: all of them."""
        if count is None or count >= len(self.samples):
            return self
        step = len(self.samples) / count
        samples = [self.samples[int(number * step)] for number in range(count)]
        return Labelled(self.dataset, samples, self.labels)

    @property
    def cells(self) -> int:
        """N of most tiles."""
        counts = Counter(self.dataset.entry(sample).cells for sample in self.samples)
        return counts.most_common(1)[0][0]

    def sensors(self) -> set[str]:
        """The sensors that any tile has."""
        seen: set[str] = set()
        for sample in self.samples:
            seen.update(self.dataset.entry(sample).modalities)
        return seen

    def items(self, extracted: Extracted) -> Items:
        """What is classified, of the tiles that could be read.

        Raises:
            InputError: there is no label.
        """
        numbers = {self.dataset.entry(sample).key: sample for sample in self.samples}
        samples = [numbers[key] for key in extracted.keys]
        splits = [self.split(sample) for sample in samples]
        groups = self._groups(samples)
        if self.labels is None:
            names = [row.name for row in self.dataset.classes]
            return cell_items(extracted.labels, names, groups=groups, splits=splits)
        return tile_items(
            [self.labels.of[key].classes for key in extracted.keys],
            self.labels.classes,
            several=self.labels.several,
            groups=groups,
            splits=splits,
        )

    def split(self, sample: int) -> str:
        """What a tile is for: as the file says, else the shards."""
        entry = self.dataset.entry(sample)
        named = ""
        if self.labels is not None:
            named = self.labels.of[entry.key].split
        return named or entry.split or TRAIN

    def _groups(self, samples: Sequence[int]) -> list[str]:
        """The group of each tile: as the file says, else its region, else the tile alone."""
        groups = []
        for sample in samples:
            entry = self.dataset.entry(sample)
            group = ""
            if self.labels is not None and self.labels.has_groups:
                group = self.labels.of[entry.key].group
            elif entry.place is not None:
                group = f"region {self.dataset.region(sample)}"
            groups.append(group or f"tile {entry.key}")
        return groups


def common_sensors(spec: ModelSpec, labelled: Labelled) -> tuple[str, ...]:
    """The sensors that both a model and any of the tiles have."""
    seen = labelled.sensors()
    return tuple(name for name in spec.modalities if name in seen)
