"""One or several sharded datasets, as one: what the rest of the program opens, counts and reads."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from data.errors import InputError
from data.hashing import content_hash
from data.shards.dataset import ShardDataset, Want
from data.stream.order import Part
from data.stream.settings import DataSettings
from data.tiles.regions import RegionTable


class Mixture:
    """Datasets with weights, opened with ``Mixture.open``. Samples are numbered through all
    datasets; a mixture of one dataset has its fingerprint. The region tables are united, the class
    tables must be equal."""

    def __init__(self, datasets: Sequence[ShardDataset], weights: Sequence[float] | None = None):
        weights = weights or [1.0] * len(datasets)
        self.datasets, self.weights = list(datasets), list(weights)
        first = datasets[0]
        for other in datasets[1:]:
            if other.classes != first.classes:
                raise InputError(
                    f"{other.path}: its class table is not that of {first.path}; "
                    f"build the shards of a mixture with one version of the program"
                )
        prints = [dataset.fingerprint for dataset in datasets]
        if len(set(prints)) != len(prints):
            raise InputError(
                f"data.mixture: {[dataset.path for dataset in datasets]}: one dataset stands there twice; "
                f"give it the sum of the weights"
            )
        self.fingerprint = (
            prints[0] if len(prints) == 1 else content_hash(repr([*zip(prints, weights)]).encode())
        )
        self.classes = first.classes
        self.regions = RegionTable(
            tuple(sorted({cell for dataset in datasets for cell in dataset.regions.cells}))
        )
        place = {cell: index for index, cell in enumerate(self.regions.cells)}
        self._regions = [[place[cell] for cell in dataset.regions.cells] for dataset in datasets]
        self._starts = list(accumulate(map(len, datasets), initial=0))

    @classmethod
    def open(cls, settings: DataSettings) -> "Mixture":
        """The dataset or the datasets of the settings. Raises InputError; see
        ``ShardDataset.open``."""
        weights = settings.mixture or {settings.shards: 1.0}
        return cls(
            [ShardDataset.open(path, settings.store) for path in weights], list(weights.values())
        )

    @property
    def parts(self) -> list[Part]:
        """The datasets as the order sees them."""
        return [
            Part(len(dataset), dataset.fingerprint, weight)
            for dataset, weight in zip(self.datasets, self.weights)
        ]

    @property
    def attribution(self) -> list[dict]:
        """Licences and attributions with their number of samples: {"licence", "attribution",
        "samples"}."""
        credits = Counter()
        for dataset in self.datasets:
            for record in dataset.attribution:
                credits[record["licence"], record["attribution"]] += record["samples"]
        return [
            {"licence": licence, "attribution": text, "samples": count}
            for (licence, text), count in sorted(credits.items())
        ]

    @property
    def path(self) -> str:
        """Where the datasets lie, for messages."""
        return ", ".join(dataset.path for dataset in self.datasets)

    @property
    def counts(self) -> Counter:
        """Requests, bytes and faults of this process so far; see ``data.storage.store.Store``."""
        return sum((dataset.store.counts for dataset in self.datasets), Counter())

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> list[str]:
        """Keys of all samples, in order; reads every index."""
        return [key for dataset in self.datasets for key in dataset.keys()]

    def entry(self, sample: int) -> dict:
        """See ``ShardDataset.entry``."""
        dataset, row, _ = self._locate(sample)
        return dataset.entry(row)

    def region(self, sample: int) -> int:
        """Index in the united region table."""
        dataset, row, regions = self._locate(sample)
        return regions[dataset.region(row)]

    def read(self, sample: int, wants: Sequence[Want]) -> list[bytes]:
        """See ``ShardDataset.read``."""
        dataset, row, _ = self._locate(sample)
        return dataset.read(row, wants)

    def _locate(self, sample: int) -> tuple[ShardDataset, int, list[int]]:
        """Dataset, number of the sample in it, and its regions' places in the united table."""
        if not 0 <= sample < len(self):
            raise InputError(f"sample {sample} is outside the {len(self)} samples")
        number = bisect_right(self._starts, sample) - 1
        return self.datasets[number], sample - self._starts[number], self._regions[number]
