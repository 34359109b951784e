"""One packed forward against a forward for each modality and view size: equal values, then time, in one run.

    python launch/bench_packed.py --spec small
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the command works from any folder

from data.jobs.whole_file import check_place, write_whole  # noqa: E402
from launch.cli import run  # noqa: E402
from models.features import Features, Views  # noqa: E402
from models.initialise import initialise  # noqa: E402
from models.skysense import SkySense  # noqa: E402
from models.spec import ModelSpec  # noqa: E402
from models.variants import named  # noqa: E402

SIZES = {"global": (2, 16), "local": (6, 4)}  # views, 10 m cells a side: the paper preset


def main() -> None:
    """Parse the command line, check that both ways agree, time them in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="small", help="a model of models/variants.py")
    parser.add_argument("--batch", type=int, default=1, help="samples")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each way, in turns")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    options = parser.parse_args()
    if options.json:
        check_place("--json", options.json)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = named(options.spec)
    # nothing dropped: a capacity counts the tokens of a call, so with it the two ways would not be the same model
    model = SkySense(spec.variant(moe=spec.moe and replace(spec.moe, capacity_factor=0.0)))
    initialise(model, 0)
    model, views = model.to(device), random_views(spec, options.batch, device)
    found = {"spec": options.spec, "batch": options.batch, "threads": options.threads, "device": str(device),
             "difference": difference(model, views)}
    print(f"model {options.spec}, {options.batch} samples, {device}, {options.threads} threads; greatest difference of "
          f"the fused maps {found['difference']:.1e}")
    for backward in (False, True):
        name = "forward + backward" if backward else "forward"
        times = {"packed": [], "one by one": []}
        for _ in range(options.rounds + 1):  # the first is a warm-up
            for way, call in (("packed", packed), ("one by one", one_by_one)):
                times[way].append(seconds(call, model, views, backward))
        ratios = sorted(b / a for a, b in zip(times["packed"][1:], times["one by one"][1:]))
        found[name] = {way: row[1:] for way, row in times.items()}
        middle = {way: statistics.median(row[1:]) for way, row in times.items()}
        print(f"{name:20} packed {middle['packed']:.3f} s, one by one {middle['one by one']:.3f} s: packed is "
              f"{statistics.median(ratios):.2f} x as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
    if options.json:
        write_whole(options.json, json.dumps(found, indent=1) + "\n")


def random_views(spec: ModelSpec, batch: int, device: torch.device) -> dict[str, Views]:
    """Views of the paper preset with random values, everything valid."""
    generator, views = torch.Generator().manual_seed(0), {}
    for size, (count, n) in SIZES.items():
        images, valid, days = {}, {}, {}
        for name, sensor in spec.modalities.items():
            side = n * sensor.pixels_per_cell
            image = torch.randn(batch, count, sensor.frames, sensor.bands, side, side, generator=generator)
            images[name] = image.to(device)  # B V T C H W
            valid[name] = torch.ones(batch, count, sensor.frames, n, n, dtype=torch.bool, device=device)
            days[name] = torch.zeros(batch, sensor.frames, dtype=torch.int64, device=device)
        views[size] = Views(images, valid, days, torch.zeros(batch, dtype=torch.int64, device=device))
    return views


def packed(model: SkySense, views: dict[str, Views]) -> dict[str, Features]:
    """All modalities and view sizes through each block together."""
    return model(views)[0]


def one_by_one(model: SkySense, views: dict[str, Views]) -> dict[str, Features]:
    """A pass through tokenizer and backbone for each modality and view size; fusion as it is."""
    found = {size: Features({}, {}) for size in views}
    for size, inputs in views.items():
        for name in inputs.images:
            part = replace(inputs, images={name: inputs.images[name]}, valid={name: inputs.valid[name]})
            stages, _, _ = model.encode({size: part})
            features = model.unpack({size: part}, *stages[-1])[size]
            found[size].maps |= features.maps
            found[size].valid |= features.valid
    model.fuse(views, found)
    return found


@torch.no_grad()
def difference(model: SkySense, views: dict[str, Views]) -> float:
    """Greatest difference of the fused maps between the two ways."""
    one, other = packed(model, views), one_by_one(model, views)
    return max(float((one[size].maps["fused"] - other[size].maps["fused"]).abs().max()) for size in views)


def seconds(call, model: SkySense, views: dict[str, Views], backward: bool) -> float:
    """One timed call."""
    began = time.perf_counter()
    with torch.set_grad_enabled(backward):
        found = call(model, views)
        if backward:
            sum(features.maps["fused"].float().square().mean() for features in found.values()).backward()
            model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    run(main)
