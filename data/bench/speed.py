"""How fast samples become cut views: several pipelines over the same samples, taking turns."""

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from data.bench.full_size import write_full_size
from data.bench.pipelines import ours, plain, rasters, scenes, stock
from data.errors import InputError
from data.stream.sample import Batch
from data.stream.settings import DataSettings

PIPELINES = {
    "ours": ours,
    "stock webdataset": stock,
    "rasterio, scenes": scenes,
    "rasterio, own size": rasters,
}
WARMUP = 3  # samples
MEMORY_READINGS = 20  # of a long run
STORED_TO_CUT = "from stored bytes to cut views"
AUGMENTED = "with photometric augmentation"
Say = Callable[[str], None]


def prepare_samples(folder: Path, archive: Path | None, *, tiles: int) -> None:
    """Make ``tiles`` full-size samples in ``folder`` from an archive, unless they are there.

    Raises:
        InputError: The folder has no samples and no archive is given.
    """
    if (folder / "shards" / "manifest.json").is_file():
        return
    if archive is None:
        raise InputError(f"{folder}: holds no samples yet; give --archive to make them from")
    write_full_size(archive, folder, tiles)


def compare_speed(folder: Path, *, samples: int, rounds: int, say: Say = print) -> dict:
    """Measure all pipelines, without and with photometric augmentation.

    Each measurement runs in a process of its own.

    Args:
        folder: Full-size samples, made by ``prepare_samples``.
        samples: Samples of each measurement.
        rounds: How often the pipelines take turns.
        say: Called with each table.

    Returns:
        Title -> pipeline -> a record of ``measure`` for each round.
    """
    comparison = {}
    for title in (STORED_TO_CUT, AUGMENTED):
        records: dict[str, list[dict]] = {name: [] for name in PIPELINES}
        for _ in range(rounds):
            for name in PIPELINES:
                record = in_fresh_process(measure, folder, name, samples, title == AUGMENTED)
                records[name].append(record)
        say(table(title, records))
        comparison[title] = records
    return comparison


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    """The result of a function in a new process, so that memory and caches are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(folder: Path, name: str, samples: int, augmented: bool) -> dict[str, float]:
    """Measure one pipeline.

    Returns:
        ``cpu`` and ``clock``: seconds of processor and clock a sample. ``bytes``: asked of the
        system a sample. ``peak``: most memory of the process in bytes.
    """
    batches = open_pipeline(folder, name, augmented)
    for _ in range(WARMUP):
        next(batches)
    bytes_before = _bytes_read()
    cpu_before = time.process_time()
    clock_before = time.perf_counter()
    for _ in range(samples):
        next(batches)
    cpu = time.process_time() - cpu_before
    clock = time.perf_counter() - clock_before
    return {
        "cpu": cpu / samples,
        "clock": clock / samples,
        "bytes": (_bytes_read() - bytes_before) / samples,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def open_pipeline(folder: Path, name: str, augmented: bool) -> Iterator[Batch]:
    """Batches of one sample from a pipeline, in one thread."""
    torch.set_num_threads(1)
    settings = DataSettings()
    if not augmented:
        settings = plain(settings)
    return PIPELINES[name](folder, settings)


def _bytes_read() -> int:
    """Bytes that this process has asked of the file system."""
    return _proc_value(Path("/proc/self/io"), "rchar")


def _proc_value(file: Path, name: str) -> int:
    """The number behind ``name:`` in a file of /proc."""
    for line in file.read_text().splitlines():
        label, _, value = line.partition(":")
        if label == name:
            return int(value.split()[0])
    raise RuntimeError(f"{file}: expected a line {name}, found none")


def table(title: str, records: dict[str, list[dict]]) -> str:
    """Medians over the rounds, and how many times faster ours is."""
    medians = {}
    for name, rounds in records.items():
        medians[name] = {
            key: statistics.median(record[key] for record in rounds) for key in rounds[0]
        }
    lines = [
        f"\n{title}; one process, one thread, median of {len(records['ours'])} rounds "
        "(smallest to largest)",
        f"{'':18}{'samples/s per core':>26}{'MB read':>10}{'peak MB':>10}{'ours is':>12}",
    ]
    for name, row in medians.items():
        rates = sorted(1 / record["cpu"] for record in records[name])
        rate = f"{1 / row['cpu']:.2f} ({rates[0]:.2f} to {rates[-1]:.2f})"
        lines.append(
            f"{name:18}{rate:>26}{row['bytes'] / 1e6:>10.2f}{row['peak'] / 1e6:>10.0f}"
            f"{row['cpu'] / medians['ours']['cpu']:>10.2f} x"
        )
    return "\n".join(lines)


def watch_memory(folder: Path, *, samples: int, say: Say = print) -> dict:
    """Resident memory of our stream, augmentation on, over many samples in one process."""
    say(f"resident memory over {samples} samples")
    return {"memory": in_fresh_process(read_memory, folder, samples, say)}


def read_memory(folder: Path, samples: int, say: Say) -> list[dict[str, int]]:
    """Run our stream and read this process's resident memory MEMORY_READINGS times."""
    batches = open_pipeline(folder, "ours", augmented=True)
    interval = max(1, samples // MEMORY_READINGS)
    readings = []
    for number in range(1, samples + 1):
        next(batches)
        if number % interval == 0:
            size = 1024 * _proc_value(Path("/proc/self/status"), "VmRSS")  # from KiB
            readings.append({"samples": number, "bytes": size})
            say(f"{number:>8} samples {size / 1e6:>8.1f} MB")
    return readings
