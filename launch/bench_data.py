"""How fast samples become cut views: our stream, a stock webdataset pipeline, and the source
rasters, in one run.

python launch/bench_data.py --archive archive --work bench
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.bench.full_size import write_full_size
from data.bench.pipelines import ours, plain, rasters, scenes, stock
from data.errors import InputError
from data.files import check_place, write_whole
from data.stream.sample import Batch
from data.stream.settings import DataSettings
from launch.cli import run

PIPELINES = {
    "ours": ours,
    "stock webdataset": stock,
    "rasterio, scenes": scenes,
    "rasterio, own size": rasters,
}
WARMUP = 3  # samples
SAMPLES_OF_MEMORY = 20  # readings of a long run


def main() -> None:
    """Parse the command line, make the samples if they are not there, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--archive", help="made by launch/prepare_data.py from the bundled samples; mosaicked"
    )
    parser.add_argument(
        "--work", required=True, help="folder of the full-size samples; used again when it is there"
    )
    parser.add_argument("--tiles", type=int, default=16, help="different samples")
    parser.add_argument("--samples", type=int, default=40, help="samples a round and pipeline")
    parser.add_argument("--rounds", type=int, default=3, help="the pipelines take turns this often")
    parser.add_argument(
        "--memory",
        type=int,
        default=0,
        metavar="SAMPLES",
        help="instead: run our stream alone over so many samples and watch its memory",
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if min(options.tiles, options.samples, options.rounds) < 1 or options.memory < 0:
        raise InputError(
            "expected --tiles, --samples and --rounds of at least 1 and --memory of at least 0"
        )
    if options.json:
        check_place("--json", options.json)
    work = Path(options.work)
    if not (work / "shards" / "manifest.json").is_file():
        if options.archive is None:
            raise InputError(f"{work}: holds no samples yet; give --archive to make them from")
        write_full_size(Path(options.archive), work, options.tiles)
    found = (
        watch(work, options.memory)
        if options.memory
        else compare(work, options.samples, options.rounds)
    )
    if options.json:
        write_whole(options.json, json.dumps(found, indent=1) + "\n")


def compare(work: Path, samples: int, rounds: int) -> dict:
    """All pipelines, with and without photometric augmentation, each measurement in a process of
    its own."""
    found = {}
    for augmented in (False, True):
        title = "with photometric augmentation" if augmented else "from stored bytes to cut views"
        for number in range(rounds):
            for name in PIPELINES:
                found.setdefault(title, {}).setdefault(name, []).append(
                    alone(measure, work, name, samples, augmented)
                )
        print(table(title, found[title]), flush=True)
    return found


def alone(function, *arguments):
    """The result of a function in a fresh process, so that memory and caches are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(work: Path, name: str, samples: int, augmented: bool) -> dict:
    """Seconds of processor and clock a sample, bytes asked of the system a sample, and peak memory
    of one pipeline."""
    batches = _open(work, name, augmented)
    for _ in range(WARMUP):
        next(batches)
    read, cpu, clock = _bytes_read(), time.process_time(), time.perf_counter()
    for _ in range(samples):
        next(batches)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    return {
        "cpu": cpu / samples,
        "clock": clock / samples,
        "bytes": (_bytes_read() - read) / samples,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _open(work: Path, name: str, augmented: bool) -> Iterator[Batch]:
    import torch

    torch.set_num_threads(1)
    return PIPELINES[name](work, DataSettings() if augmented else plain(DataSettings()))


def _bytes_read() -> int:
    """Bytes that this process has asked of the file system."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def table(title: str, rounds: dict[str, list[dict]]) -> str:
    """Medians over the rounds, and how many times faster ours is."""
    middle = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in rounds.items()
    }
    lines = [
        f"\n{title}; one process, one thread, median of {len(rounds['ours'])} rounds (smallest to largest)",
        f"{'':18}{'samples/s per core':>26}{'MB read':>10}{'peak MB':>10}{'ours is':>12}",
    ]
    for name, row in middle.items():
        rates = sorted(1 / entry["cpu"] for entry in rounds[name])
        rate = f"{1 / row['cpu']:.2f} ({rates[0]:.2f} to {rates[-1]:.2f})"
        lines.append(
            f"{name:18}{rate:>26}{row['bytes'] / 1e6:>10.2f}{row['peak'] / 1e6:>10.0f}"
            f"{row['cpu'] / middle['ours']['cpu']:>10.2f} x"
        )
    return "\n".join(lines)


def watch(work: Path, samples: int) -> dict:
    """Resident memory of our stream, augmentation on, over many samples in one process."""
    print(f"resident memory over {samples} samples")
    return alone(_watch, work, samples)


def _watch(work: Path, samples: int) -> dict:
    batches, readings = _open(work, "ours", True), []
    for number in range(1, samples + 1):
        next(batches)
        if number % max(1, samples // SAMPLES_OF_MEMORY) == 0:
            resident = next(
                line
                for line in Path("/proc/self/status").read_text().splitlines()
                if "VmRSS" in line
            )
            readings.append({"samples": number, "bytes": int(resident.split()[1]) * 1024})
            print(f"{number:>8} samples {readings[-1]['bytes'] / 1e6:>8.1f} MB", flush=True)
    return {"memory": readings}


if __name__ == "__main__":
    run(main)
