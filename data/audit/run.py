"""All samples through some processes: blocks of samples go out, records and counts come back in
their order."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import accumulate
from multiprocessing import get_context

import numpy as np
import torch

from data.audit.pixels import Pixels
from data.audit.read import read_sample
from data.audit.record import Record
from data.audit.tally import Tally
from data.errors import InputError
from data.shards.dataset import ShardDataset

BLOCK = (
    16  # samples sent to a process at once; not a setting: the last bits of the sums follow from it
)
AHEAD = 3  # blocks a process may be behind: bounds what waits to be merged

Result = tuple[list[Record], Pixels]


def audit(
    dataset: ShardDataset,
    samples: int | None = None,
    workers: int = 0,
    told: Callable[[Record], None] = lambda record: None,
) -> tuple[Tally, Pixels]:
    """Read ``samples`` of the dataset, evenly spread (None: all), in ``workers`` processes (0: in
    this one).

    The result is the same for any number of processes. ``told`` is called with every record. Raises
    InputError for numbers of samples or workers that make no sense."""
    if workers < 0:
        raise InputError(f"audit: expected workers >= 0, found {workers}")
    chosen = spread(len(dataset), samples)
    blocks = [chosen[i : i + BLOCK].tolist() for i in range(0, len(chosen), BLOCK)]
    tally, pixels = Tally(), Pixels()
    for records, part in _results(dataset, blocks, workers):
        pixels.merge(part)
        for record in records:
            tally.add(record)
            told(record)
    return tally, pixels


def spread(total: int, samples: int | None) -> np.ndarray:
    """Numbers of ``samples`` of ``total`` samples, evenly spread: the packing has shuffled them.
    Raises InputError for fewer than one."""
    if samples is not None and samples < 1:
        raise InputError(f"audit: expected at least 1 sample, found {samples}")
    if samples is None or samples >= total:
        return np.arange(total)
    return np.arange(samples) * total // samples


def shard_names(manifest: dict) -> Callable[[int], str]:
    """Sample -> name of its shard."""
    ends = list(accumulate(shard["samples"] for shard in manifest["shards"]))
    return lambda sample: manifest["shards"][int(np.searchsorted(ends, sample, "right"))]["name"]


def _results(dataset: ShardDataset, blocks: list[list[int]], workers: int) -> Iterator[Result]:
    """Results of the blocks, in order; at most ``AHEAD`` a process are under way."""
    if not workers:
        _start(dataset)
        yield from map(_read, blocks)
        return
    with ProcessPoolExecutor(
        min(workers, len(blocks)), get_context("spawn"), _start, (dataset,)
    ) as pool:
        yield from _windowed(pool, blocks, AHEAD * workers)


def _windowed(pool: Executor, blocks: list[list[int]], most: int) -> Iterator[Result]:
    """As pool.map, but with a bound on what is under way."""
    waiting = []
    try:
        for block in blocks:
            waiting.append(pool.submit(_read, block))
            if len(waiting) >= most:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


_dataset: ShardDataset  # of this process


def _start(dataset: ShardDataset) -> None:
    """What a process needs once."""
    global _dataset
    _dataset = dataset
    torch.set_num_threads(1)


def _read(block: list[int]) -> Result:
    """Read a block of samples."""
    shard, pixels = shard_names(_dataset.manifest), Pixels()
    return [read_sample(_dataset, sample, shard(sample), pixels) for sample in block], pixels
