"""All samples through some processes.

Blocks of samples go out, records and measurements come back in their order.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from data.audit.pixels import Pixels
from data.audit.read import read_sample
from data.audit.record import Record
from data.audit.tally import Tally
from data.errors import InputError
from data.shards.dataset import ShardDataset

# Samples sent to a process at once. Not a setting: the last bits of the sums follow from it.
BLOCK = 16
AHEAD = 3  # blocks a process may be behind: bounds what waits to be merged

Result = tuple[list[Record], Pixels]


def audit(
    dataset: ShardDataset,
    *,
    samples: int | None = None,
    workers: int = 0,
    on_record: Callable[[Record], None] | None = None,
) -> tuple[Tally, Pixels]:
    """Read a dataset. The result is the same for any number of processes.

    Args:
        dataset: the dataset to audit.
        samples: read so many, evenly spread; None: all.
        workers: number of processes; 0: in this one.
        on_record: called with every record, in the order of the samples.

    Raises:
        InputError: fewer than one sample, or fewer than zero processes.
    """
    if workers < 0:
        raise InputError(f"audit: expected workers >= 0, found {workers}")
    numbers = spread(len(dataset), samples).tolist()
    blocks = [numbers[i : i + BLOCK] for i in range(0, len(numbers), BLOCK)]
    tally = Tally()
    pixels = Pixels()
    for records, part in _results(dataset, blocks, workers):
        pixels.merge(part)
        for record in records:
            tally.add(record)
            if on_record is not None:
                on_record(record)
    return tally, pixels


def spread(total: int, samples: int | None) -> np.ndarray:
    """Choose samples evenly; the packing has shuffled them.

    Args:
        total: number of samples of the dataset.
        samples: how many to choose; None: all.

    Returns:
        Numbers of the chosen samples, ascending.

    Raises:
        InputError: fewer than one sample.
    """
    if samples is not None and samples < 1:
        raise InputError(f"audit: expected at least 1 sample, found {samples}")
    if samples is None or samples >= total:
        return np.arange(total)
    return np.arange(samples) * total // samples


def _results(dataset: ShardDataset, blocks: list[list[int]], workers: int) -> Iterator[Result]:
    """Results of the blocks, in order; at most ``AHEAD`` blocks a process are under way."""
    if not workers:
        _start(dataset)
        yield from map(_read, blocks)
        return
    processes = min(workers, len(blocks))
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (dataset,)) as pool:
        yield from _windowed(pool, blocks, AHEAD * workers)


def _windowed(pool: Executor, blocks: list[list[int]], limit: int) -> Iterator[Result]:
    """Like ``pool.map``, but with at most ``limit`` blocks under way."""
    waiting: list[Future[Result]] = []
    try:
        for block in blocks:
            waiting.append(pool.submit(_read, block))
            if len(waiting) >= limit:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


_dataset: ShardDataset  # of this process


def _start(dataset: ShardDataset) -> None:
    """Prepare a process."""
    global _dataset
    _dataset = dataset
    torch.set_num_threads(1)


def _read(block: list[int]) -> Result:
    """Read a block of samples."""
    pixels = Pixels()
    records = []
    for sample in block:
        shard = _dataset.shard_name(sample)
        records.append(read_sample(_dataset, sample, shard, pixels))
    return records, pixels
