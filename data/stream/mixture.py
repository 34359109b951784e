"""One or several sharded datasets, as one: what the rest of the program opens and reads."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from data.errors import InputError
from data.hashing import content_hash
from data.shards.dataset import ShardDataset, Want
from data.shards.records import ClassRow, Credit, IndexEntry
from data.stream.order import Part
from data.stream.settings import DataSettings
from data.tiles.definitions import read_sensors, sensors_of
from data.tiles.known import Authority
from data.tiles.modalities import MODALITIES
from data.tiles.regions import NO_REGION, RegionTable


class Mixture:
    """Datasets with weights, opened with ``Mixture.open``.

    Samples are numbered through all datasets. A mixture of one dataset has its fingerprint. The
    region tables are united, the class tables must be equal.
    """

    def __init__(self, datasets: Sequence[ShardDataset], weights: Sequence[float] | None = None):
        """Join opened datasets; without weights all weigh the same.

        Raises:
            InputError: class tables differ, or a dataset comes twice.
        """
        if weights is None:
            weights = [1.0] * len(datasets)
        self.datasets = list(datasets)
        self.weights = list(weights)
        self.classes = _common_classes(datasets)
        self.fingerprint = _fingerprint(datasets, weights)
        self.regions = _united_regions(datasets)
        index_of = {cell: index for index, cell in enumerate(self.regions.cells)}
        self._regions = []  # of each dataset: its region index -> the united region index
        for dataset in datasets:
            self._regions.append([index_of[cell] for cell in dataset.regions.cells])
        self._starts = list(accumulate(map(len, datasets), initial=0))

    @classmethod
    def open(cls, settings: DataSettings) -> "Mixture":
        """The dataset or the datasets of the settings.

        Raises:
            InputError: see ``ShardDataset.open``; or the settings' sensors file is wrong.
        """
        if settings.sensors:
            learn_statistics(settings.sensors)
        weights = settings.mixture
        if not weights:
            weights = {settings.shards: 1.0}
        datasets = []
        for path in weights:
            datasets.append(ShardDataset.open(path, settings.store, split=settings.split))
        return cls(datasets, list(weights.values()))

    @property
    def parts(self) -> list[Part]:
        """The datasets as the order sees them."""
        parts = []
        for dataset, weight in zip(self.datasets, self.weights):
            parts.append(Part(len(dataset), dataset.fingerprint, weight))
        return parts

    @property
    def attribution(self) -> list[Credit]:
        """Licences and their number of samples: {"licence", "attribution", "samples"} each."""
        samples: Counter[tuple[str, str]] = Counter()
        for dataset in self.datasets:
            for record in dataset.attribution:
                samples[record.licence, record.attribution] += record.samples
        records = []
        for (licence, text), count in sorted(samples.items()):
            records.append(Credit(licence=licence, attribution=text, samples=count))
        return records

    @property
    def path(self) -> str:
        """Folders or URLs of the datasets, for messages."""
        return ", ".join(dataset.path for dataset in self.datasets)

    @property
    def counts(self) -> Counter:
        """Requests, bytes and faults of this process so far; see ``data.storage.store.Store``."""
        total: Counter = Counter()
        for dataset in self.datasets:
            total = total + dataset.store.counts
        return total

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> list[str]:
        """Keys of all samples, in order; reads every index."""
        keys = []
        for dataset in self.datasets:
            keys += dataset.keys()
        return keys

    def entry(self, sample: int) -> IndexEntry:
        """See ``ShardDataset.entry``."""
        dataset, row, _ = self._locate(sample)
        return dataset.entry(row)

    def region(self, sample: int) -> int:
        """Index in the united region table; ``NO_REGION`` without a place."""
        dataset, row, regions = self._locate(sample)
        region = dataset.region(row)
        if region == NO_REGION:
            return NO_REGION
        return regions[region]

    def read(self, sample: int, wants: Sequence[Want]) -> list[bytes]:
        """See ``ShardDataset.read``."""
        dataset, row, _ = self._locate(sample)
        return dataset.read(row, wants)

    def _locate(self, sample: int) -> tuple[ShardDataset, int, list[int]]:
        """Dataset, number of the sample in it, and the united indices of its regions."""
        if not 0 <= sample < len(self):
            raise InputError(f"sample {sample} is outside the {len(self)} samples")
        number = bisect_right(self._starts, sample) - 1
        return self.datasets[number], sample - self._starts[number], self._regions[number]


def learn_statistics(path: str) -> None:
    """Make this process know the sensors of a run's file, which say its means and deviations.

    Raises:
        InputError: the file is wrong, or contradicts what the process knows in something else.
    """
    MODALITIES.add(sensors_of(read_sensors(path)), path, Authority.RUN)


def _common_classes(datasets: Sequence[ShardDataset]) -> list[ClassRow]:
    """The class table of all datasets. Raises InputError if they differ."""
    first = datasets[0]
    for other in datasets[1:]:
        if other.classes != first.classes:
            raise InputError(
                f"{other.path}: its class table is not that of {first.path}; "
                f"build the shards of a mixture with one version of the program"
            )
    return first.classes


def _fingerprint(datasets: Sequence[ShardDataset], weights: Sequence[float]) -> str:
    """Hash of contents and weights. Raises InputError if a dataset comes twice."""
    fingerprints = [dataset.fingerprint for dataset in datasets]
    if len(set(fingerprints)) != len(fingerprints):
        paths = ", ".join(dataset.path for dataset in datasets)
        raise InputError(
            f"data.mixture: {paths} name one dataset twice; give it the sum of the weights"
        )
    if len(fingerprints) == 1:
        return fingerprints[0]
    return content_hash(repr(list(zip(fingerprints, weights))).encode())


def _united_regions(datasets: Sequence[ShardDataset]) -> RegionTable:
    """The regions of all datasets, ascending."""
    cells: set[int] = set()
    for dataset in datasets:
        cells.update(dataset.regions.cells)
    return RegionTable(tuple(sorted(cells)))
