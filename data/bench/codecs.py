"""What codecs cost one training sample: bytes kept and read, CPU time to decode, loss."""

import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numcodecs import blosc

from data.bench.coders import zstd
from data.bench.hr_candidates import hr_codecs
from data.bench.images import HrCodec
from data.bench.levels import draw_sample_views, level_use, levels_table
from data.bench.scene import Scene, load_scene
from data.bench.series import StackCodec
from data.bench.stack_candidates import stack_codecs
from data.errors import InputError
from data.stream.settings import DataSettings

# Packages whose versions are recorded: name of the distribution -> name to import.
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "pillow": "PIL",
    "numcodecs": "numcodecs",
    "simplejpeg": "simplejpeg",
    "imagecodecs": "imagecodecs",
    "pcodec": "pcodec",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class CodecOptions:
    """How the codecs are measured.

    Attributes:
        repeats: Timings of each candidate.
        draws: Draws of views and frames that one timing covers.
        cells: Side of the sample in 10 m cells, a multiple of 16.
        seed: Seed of the mosaic and of the draws.
    """

    repeats: int = 5
    draws: int = 8
    cells: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.draws < 1:
            raise InputError(
                f"--repeats, --draws: expected 1 or more, found {self.repeats}, {self.draws}"
            )
        if self.cells < 16 or self.cells % 16:  # whole squares of 512 pixels on the full level
            raise InputError(f"--cells: expected a multiple of 16, found {self.cells}")


def compare_codecs(archive: Path, options: CodecOptions, say: Say = print) -> dict:
    """Measure all candidates for all members of a sample.

    Args:
        archive: Archive of the bundled samples, from which a full-size sample is put together.
        options: Size of the sample and number of timings.
        say: Called with each table, line by line.

    Returns:
        All figures, ready for JSON.
    """
    torch.set_num_threads(1)
    blosc.use_threads = False
    settle_allocator()
    scene = load_scene(archive, options.seed, options.cells)
    rng = np.random.default_rng(options.seed)
    comparison: dict[str, Any] = {
        "archive": archive.name,
        **asdict(options),
        "machine": machine(),
        "versions": versions(),
        "levels": level_use(rng, options.cells),
    }
    say(levels_table(comparison["levels"]))
    say("")
    views = [draw_sample_views(rng, options.cells) for _ in range(options.draws)]
    measure_hr = hr_measurement(scene.hr, views, options.repeats)
    comparison["hr"] = compare_candidates(hr_codecs(), measure_hr, say)
    for member, codecs in stack_codecs().items():
        stack = member_stack(scene, member)
        frames = draw_frames(len(stack), member, options.draws, rng)
        say(
            f"\n{member}: {stack.dtype} {stack.shape}, "
            f"{len(frames[0])} of {len(stack)} frames drawn"
        )
        measure_stack = stack_measurement(stack, frames, options.repeats)
        comparison[member] = compare_candidates(codecs, measure_stack, say)
    return comparison


def member_stack(scene: Scene, member: str) -> np.ndarray:
    """A member of the sample as a stack of frames."""
    if member == "labels":
        return scene.labels[None]
    return getattr(scene, member)


def draw_frames(length: int, member: str, draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The frames that each draw takes of a stack of ``length`` frames, ascending."""
    count = DataSettings().frames.get(member.removesuffix("_valid"), 1)
    return [np.sort(rng.permutation(length)[:count]) for _ in range(draws)]


# ---- measuring


def settle_allocator() -> None:
    """Free one large block: glibc then keeps freed images instead of giving their pages back.

    Otherwise the first candidates pay up to 8000 page faults a sample (15 ms), and later ones none.
    """
    np.ones(31 * 2**20, np.uint8)  # glibc learns from blocks below 32 MiB


def hr_measurement(image: np.ndarray, draws: list, repeats: int) -> Callable[[HrCodec], dict]:
    """A function that measures one candidate for the S S 3 uint8 ``image``."""
    plain = HrCodec("raw", zstd(0))
    uncompressed = plain.encode(image)
    exact = [plain.cut(uncompressed, views, len(image))[0] for views in draws]

    def measure(codec: HrCodec) -> dict:
        stored = codec.encode(image)

        def cut(views: list) -> tuple[list[torch.Tensor], int]:
            return codec.cut(stored, views, len(image))

        results, times = timed(cut, draws, repeats)
        errors = []
        for (views, _), exact_views in zip(results, exact):
            for view, exact_view in zip(views, exact_views):
                errors.append((view.double() - exact_view.double()).square().mean().item())
        error = float(np.mean(errors))
        psnr = None
        if error:
            psnr = 10 * float(np.log10(255**2 / error))
        return {
            "bytes": sum(map(len, stored.values())),
            "read": float(np.mean([read for _, read in results])),
            **times,
            "psnr": psnr,
        }

    return measure


def stack_measurement(
    stack: np.ndarray, draws: list[np.ndarray], repeats: int
) -> Callable[[StackCodec], dict]:
    """A function that measures one candidate for a stack of frames."""

    def measure(codec: StackCodec) -> dict:
        blocks = codec.write(stack)

        def read(frames: np.ndarray) -> tuple[np.ndarray, int]:
            return codec.read(blocks, frames, stack.shape, stack.dtype)

        results, times = timed(read, draws, repeats)
        errors = []
        for (decoded, _), frames in zip(results, draws):
            errors.append(float(np.abs(decoded.astype(np.float64) - stack[frames]).max()))
        return {
            "bytes": sum(map(len, blocks)),
            "read": float(np.mean([read for _, read in results])),
            **times,
            "error": max(errors),
            "frame alone": codec.group == 1,
        }

    return measure


def timed(work: Callable, draws: list, repeats: int) -> tuple[list, dict[str, float]]:
    """Time ``work`` over all draws, after one call for each as a warm-up.

    Returns:
        The result for each draw, and the CPU milliseconds a draw, all threads together.
    """
    results = [work(draw) for draw in draws]
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for draw in draws:
            work(draw)
        times.append(1e3 * (time.process_time() - start) / len(draws))
    return results, {"ms": median(times), "ms_min": min(times), "ms_max": max(times)}


# ---- candidates beside each other


def compare_candidates(codecs: Sequence, measure: Callable[[Any], dict], say: Say) -> list[dict]:
    """Measure all candidates and say a line for each; per cent are of the first."""
    records: list[dict] = []
    say(f"{'':54}{'kB kept':>9}{'%':>7}{'kB read':>9}{'CPU ms':>9}  {'(min - max)':18}loss")
    for codec in codecs:
        if not codec.available:
            records.append({"name": codec.name, "missing": codec.pip})
            say(f"{codec.name:54}not installed: pip install {codec.pip}")
            continue
        record = {"name": codec.name, **measure(codec)}
        records.append(record)
        record["percent"] = 100 * record["bytes"] / records[0]["bytes"]
        say(table_line(record))
    return records


def table_line(record: dict) -> str:
    """A measured candidate as a line of the table."""
    spread = f"({record['ms_min']:.2f} - {record['ms_max']:.2f})"
    return (
        f"{record['name']:54}{record['bytes'] / 1e3:9.1f}{record['percent']:7.1f}"
        f"{record['read'] / 1e3:9.1f}{record['ms']:9.2f}  {spread:18}{loss(record)}"
    )


def loss(record: dict) -> str:
    """The loss in words: dB of the views, or the largest error in the stack's unit."""
    if record.get("psnr"):
        return f"{record['psnr']:.1f} dB"
    if record.get("error"):
        return f"{record['error']:.4f}"
    return "none"


# ---- where it was measured


def versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    installed = {}
    for distribution, module in PACKAGES.items():
        if importlib.util.find_spec(module):
            installed[distribution] = importlib.metadata.version(distribution)
    return installed


def machine() -> str:
    """Processor and cores, as the system names them."""
    file = Path("/proc/cpuinfo")
    lines = []
    if file.exists():
        lines = file.read_text().splitlines()
    info = {}
    for line in lines:
        name, _, value = line.partition(":")
        info[name.strip()] = value.strip()
    cores = sum(line.startswith("processor") for line in lines)
    return (
        f"{info.get('model name', platform.processor())}, family {info.get('cpu family')}, "
        f"model {info.get('model')}, {cores} cores"
    )
