"""Measure what codecs cost one training sample: bytes kept, bytes read, CPU time to decode what is
drawn, loss.

python launch/bench_codecs.py runs/demo/archive --json docs/benchmarks/codecs.json
"""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numcodecs import blosc

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.bench.images import LEVELS, HrCodec, box, hr_codecs, level_of, touched, zstd
from data.bench.scene import Scene, load_scene
from data.bench.series import StackCodec, stack_codecs
from data.errors import InputError
from data.files import check_place, write_whole
from data.stream.settings import DataSettings, ViewSettings
from data.stream.views import draw_views
from data.tiles.tile import HR_PIXELS
from launch.cli import run

TILES = (256, 512)  # pixels a side of the squares whose use is counted
VERSIONS = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "numcodecs",
    "simplejpeg",
    "imagecodecs",
    "pcodec",
)


def main() -> None:
    """Parse the command line, measure, print the tables, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "archive", help="archive made by launch/prepare_data.py from the bundled samples"
    )
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each candidate")
    parser.add_argument(
        "--draws", type=int, default=8, help="draws of views and frames that one timing covers"
    )
    parser.add_argument(
        "--cells", type=int, default=64, help="side of the sample in 10 m cells; a multiple of 16"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the mosaic and the draws")
    options = parser.parse_args()
    if options.repeats < 1 or options.draws < 1:
        raise InputError(
            f"--repeats, --draws: expected 1 or more, found {options.repeats}, {options.draws}"
        )
    if options.cells < 16 or options.cells % 16:  # whole squares of 512 pixels on the full level
        raise InputError(f"--cells: expected a multiple of 16, found {options.cells}")
    if options.json:
        check_place("--json", options.json)
    torch.set_num_threads(1)
    blosc.use_threads = False
    settle_allocator()
    scene, rng = (
        load_scene(options.archive, options.seed, options.cells),
        np.random.default_rng(options.seed),
    )
    found = {
        "archive": Path(options.archive).name,
        "repeats": options.repeats,
        "draws": options.draws,
        "cells": options.cells,
        "seed": options.seed,
        "machine": machine(),
        "versions": versions(),
        "levels": level_use(rng, options.cells),
    }
    print_levels(found["levels"])
    views = [draw(rng, options.cells) for _ in range(options.draws)]
    found["hr"] = table(hr_codecs(), measure_hr(scene.hr, views, options.repeats))
    for member, codecs in stack_codecs().items():
        stack, frames = drawn(scene, member, options.draws, rng)
        print(
            f"\n{member}: {stack.dtype} {stack.shape}, {len(frames[0])} of {len(stack)} frames drawn"
        )
        found[member] = table(codecs, measure_stack(stack, frames, options.repeats))
    if options.json:
        write_whole(options.json, json.dumps(found, indent=1) + "\n")


# ---- what a step draws


def draw(rng: np.random.Generator, cells: int) -> list[tuple]:
    """(view, output pixels a side) of all views of one sample, at the default settings."""
    settings = ViewSettings()
    sides = {"global": HR_PIXELS * settings.global_cells, "local": HR_PIXELS * settings.local_cells}
    return [
        (view, sides[name])
        for name, group in draw_views(rng, cells, settings).items()
        for view in group
    ]


def drawn(
    scene: Scene, member: str, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A member as a stack of frames, and the frames of each draw (ascending)."""
    stack = scene.labels[None] if member == "labels" else getattr(scene, member)
    count = DataSettings().frames.get(member.removesuffix("_valid"), 1)
    return stack, [np.sort(rng.permutation(len(stack))[:count]) for _ in range(draws)]


def level_use(rng: np.random.Generator, cells: int, samples: int = 2000) -> list[dict]:
    """For each level of the pyramid: in how many of ``samples`` some view wants it, in how many it
    is the finest that any view wants, and the mean share of its tiles that the views touch which
    want it. The last entry is an image without a pyramid. All in per cent."""
    draws, found = [draw(rng, cells) for _ in range(samples)], []
    finest = [min(level_of(view, out) for view, out in views) for views in draws]
    for level in range(LEVELS):
        side = HR_PIXELS * cells >> level
        wanted = [[view for view, out in views if level_of(view, out) == level] for views in draws]
        boxes = [[box(view, level) for view in views] for views in wanted if views]
        found.append(
            {
                "level": str(level),
                "pixels": side,
                "wanted": 100 * len(boxes) / samples,
                "finest": 100 * finest.count(level) / samples,
                "tiles": _touched(boxes, side),
            }
        )
    boxes = [[box(view, 0) for view, _ in views] for views in draws]
    return [
        *found,
        {
            "level": "no pyramid",
            "pixels": HR_PIXELS * cells,
            "wanted": 100.0,
            "finest": 100.0,
            "tiles": _touched(boxes, HR_PIXELS * cells),
        },
    ]


def _touched(boxes: list[list[tuple]], side: int) -> dict[str, float]:
    """Tile size -> mean share in per cent of the tiles of a level of ``side`` pixels that a
    sample's boxes touch; empty without boxes."""
    counts = {tile: (-(-side // tile)) ** 2 for tile in TILES}
    return {
        str(tile): 100 * float(np.mean([len(touched(one, tile)) for one in boxes])) / count
        for tile, count in counts.items()
        if boxes
    }


def print_levels(levels: list[dict]) -> None:
    """The table of ``level_use``."""
    print(
        f"{'level':12}{'pixels':>8}{'wanted %':>10}{'finest %':>10}"
        + "".join(f"{f'tiles {tile} %':>14}" for tile in TILES)
    )
    for one in levels:
        shares = "".join(f"{one['tiles'].get(str(tile), float('nan')):14.1f}" for tile in TILES)
        print(
            f"{one['level']:12}{one['pixels']:8}{one['wanted']:10.1f}{one['finest']:10.1f}{shares}"
        )
    print()


# ---- measuring


def settle_allocator() -> None:
    """Free one large block: glibc then keeps freed images instead of giving their pages back.
    Otherwise the first candidates pay up to 8000 page faults a sample (15 ms) that the later ones
    do not."""
    np.ones(31 * 2**20, np.uint8)  # glibc learns from blocks below 32 MiB


def measure_hr(image: np.ndarray, draws: list[list], repeats: int) -> Callable[[HrCodec], dict]:
    """A function that measures one candidate for the S S 3 uint8 ``image``."""
    plain = HrCodec("raw", zstd(0))
    stored = plain.encode(image)
    exact = [plain.cut(stored, views, len(image))[0] for views in draws]

    def measure(codec: HrCodec) -> dict:
        stored = codec.encode(image)
        found, times = timed(lambda views: codec.cut(stored, views, len(image)), draws, repeats)
        errors = [
            (a.double() - b.double()).square().mean().item()
            for (views, _), wanted in zip(found, exact)
            for a, b in zip(views, wanted)
        ]
        error = float(np.mean(errors))
        return {
            "bytes": sum(map(len, stored.values())),
            "read": float(np.mean([read for _, read in found])),
            **times,
            "psnr": 10 * float(np.log10(255**2 / error)) if error else None,
        }

    return measure


def measure_stack(
    stack: np.ndarray, draws: list[np.ndarray], repeats: int
) -> Callable[[StackCodec], dict]:
    """A function that measures one candidate for a stack of frames."""

    def measure(codec: StackCodec) -> dict:
        blocks = codec.write(stack)
        found, times = timed(
            lambda frames: codec.read(blocks, frames, stack.shape, stack.dtype), draws, repeats
        )
        error = max(
            float(np.abs(got.astype(np.float64) - stack[frames]).max())
            for (got, _), frames in zip(found, draws)
        )
        return {
            "bytes": sum(map(len, blocks)),
            "read": float(np.mean([read for _, read in found])),
            **times,
            "error": error,
            "frame alone": codec.group == 1,
        }

    return measure


def timed(work: Callable, draws: list, repeats: int) -> tuple[list, dict]:
    """Results of ``work`` for each draw, and its CPU milliseconds a draw, all threads together,
    after one warm-up."""
    found, times = [work(one) for one in draws], []
    for _ in range(repeats):
        start = time.process_time()
        for one in draws:
            work(one)
        times.append(1e3 * (time.process_time() - start) / len(draws))
    return found, {"ms": median(times), "ms_min": min(times), "ms_max": max(times)}


def table(codecs: list, measure: Callable) -> list[dict]:
    """Measure all candidates and print a line each; per cent are of the first."""
    records = []
    print(f"{'':54}{'kB kept':>9}{'%':>7}{'kB read':>9}{'CPU ms':>9}  {'(min - max)':18}loss")
    for codec in codecs:
        if not codec.available:
            records.append({"name": codec.name, "missing": codec.pip})
            print(f"{codec.name:54}not installed: pip install {codec.pip}")
            continue
        one = {"name": codec.name, **measure(codec)}
        one["percent"] = 100 * one["bytes"] / (records[0]["bytes"] if records else one["bytes"])
        spread = f"({one['ms_min']:.2f} - {one['ms_max']:.2f})"
        print(
            f"{codec.name:54}{one['bytes'] / 1e3:9.1f}{one['percent']:7.1f}{one['read'] / 1e3:9.1f}{one['ms']:9.2f}"
            f"  {spread:18}{loss(one)}",
            flush=True,
        )
        records.append(one)
    return records


def loss(one: dict) -> str:
    """The loss of a record in words: dB of the views, or the largest error in the stack's unit."""
    if one.get("psnr"):
        return f"{one['psnr']:.1f} dB"
    return f"{one['error']:.4f}" if one.get("error") else "none"


def versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    return {
        name: importlib.metadata.version(name)
        for name in VERSIONS
        if importlib.util.find_spec({"pillow": "PIL"}.get(name, name))
    }


def machine() -> str:
    """Processor and cores, as the system names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    info = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    cores = sum(line.startswith("processor") for line in lines)
    return (
        f"{info.get('model name', platform.processor())}, family {info.get('cpu family')}, "
        f"model {info.get('model')}, {cores} cores"
    )


if __name__ == "__main__":
    run(main)
