"""All samples through some processes.

Blocks of samples go out, records and measurements come back in their order.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch

from data.audit.findings.tally import Tally
from data.audit.measure.pixels import Pixels
from data.audit.measure.record import Record
from data.audit.read import read_sample
from data.errors import InputError
from data.jobs.places import Place
from data.jobs.tasks import Died, on_workers
from data.shards.dataset import ShardDataset
from data.storage.settings import StoreSettings
from data.tiles.modalities import MODALITIES

# Samples in a task. Not a setting: the last bits of the sums follow from it.
BLOCK = 16

Result = tuple[list[Record], Pixels]


@dataclass(frozen=True)
class Source:
    """Where a process finds the dataset; the dataset itself is too large to go with each task."""

    path: str
    settings: StoreSettings
    manifest_hash: str


@dataclass(frozen=True)
class Block:
    """Samples that are read at once, by their numbers."""

    samples: tuple[int, ...]

    def __str__(self) -> str:
        return f"samples {self.samples[0]} to {self.samples[-1]}"


@dataclass(frozen=True)
class Spread:
    """Numbers of some samples of a dataset, ascending and evenly spread; packing has shuffled them.

    Attributes:
        total: samples of the dataset.
        chosen: how many of them.
    """

    total: int
    chosen: int

    @classmethod
    def of(cls, total: int, samples: int | None) -> "Spread":
        """Choose some samples; None: all.

        Raises:
            InputError: fewer than one sample.
        """
        if samples is None:
            return cls(total, total)
        if samples < 1:
            raise InputError(f"audit: expected at least 1 sample, found {samples}")
        return cls(total, min(samples, total))

    def __len__(self) -> int:
        return self.chosen

    def numbers(self, start: int, stop: int) -> tuple[int, ...]:
        """Those from the ``start``-th to the one before the ``stop``-th."""
        return tuple(i * self.total // self.chosen for i in range(start, stop))


@dataclass(frozen=True)
class Blocks:
    """The blocks of some samples, each made when it is its turn."""

    samples: Spread

    def __len__(self) -> int:
        return -(-len(self.samples) // BLOCK)

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, len(self.samples), BLOCK):
            yield Block(self.samples.numbers(start, min(start + BLOCK, len(self.samples))))


def audit(
    dataset: ShardDataset,
    *,
    samples: int | None = None,
    workers: int | None = 0,
    place: Place = None,
    on_record: Callable[[Record], None] | None = None,
) -> tuple[Tally, Pixels]:
    """Read a dataset. The result is the same for any number of processes.

    Args:
        dataset: the dataset to audit.
        samples: read so many, evenly spread; None: all.
        workers: number of processes; 0: in this one; None leaves it to the place.
        place: where the processes are; None for this machine, with one a core.
        on_record: called with every record, in the order of the samples.

    Raises:
        InputError: fewer than one sample, fewer than zero processes, or processes that were ended.
    """
    blocks = Blocks(Spread.of(len(dataset), samples))
    source = Source(dataset.path, dataset.store.settings, dataset.manifest.hash)
    tally = Tally()
    pixels = Pixels()
    _open[source.manifest_hash] = dataset  # for work in this process
    read = partial(read_block, source)
    results = on_workers(read, blocks, workers=workers, place=place, ordered=True)
    with closing(results):
        for block, result in results:
            if isinstance(result, Died):
                raise InputError(
                    f"{dataset.path}: {block}: two processes that read them were ended{result}; "
                    f"give them more memory, or use fewer workers"
                )
            records, part = result
            pixels.merge(part)
            for record in records:
                tally.add(record)
                if on_record is not None:
                    on_record(record)
    tally.suspects.compare()
    return tally, pixels


@MODALITIES.apart()
def read_block(source: Source, block: Block) -> Result:
    """Read a block of samples.

    Raises:
        InputError: the dataset cannot be opened, or is another one by now.
    """
    dataset = _dataset(source)
    dataset.know_sensors()
    pixels = Pixels()
    records = []
    for sample in block.samples:
        shard = dataset.shard_name(sample)
        records.append(read_sample(dataset, sample, shard, pixels))
    return records, pixels


_open: dict[str, ShardDataset] = {}  # what this process has open, by the hash of its manifest


def _dataset(source: Source) -> ShardDataset:
    """The dataset, which each process opens once."""
    if source.manifest_hash not in _open:
        torch.set_num_threads(1)
        dataset = ShardDataset.open(source.path, source.settings)
        if dataset.manifest.hash != source.manifest_hash:
            raise InputError(f"{source.path}: the dataset was replaced while it was read")
        _open.clear()
        _open[source.manifest_hash] = dataset
    return _open[source.manifest_hash]
