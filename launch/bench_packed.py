"""One packed forward against a forward for each sensor and view size, and one for each image: equal
values, then time, in one run.

    python launch/bench_packed.py --spec small
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.errors import InputError
from data.files import check_place, write_whole
from engine.bench.timing import interleaved, spread, times_faster
from launch.cli import run
from models.features import Features, Views
from models.initialise import initialise
from models.skysense import SkySense
from models.spec import ModelSpec
from models.variants import named

Way = Callable[[SkySense, dict[str, Views]], dict[str, Features]]
SIZES = {"global": (2, 16), "local": (6, 4)}  # views, 10 m cells a side: the paper preset


def main() -> None:
    """Parse the command line, check that both ways agree, time them in turns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="small", help="a model of models/variants.py")
    parser.add_argument("--batch", type=int, default=1, help="samples")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each way, in turns")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    options = parser.parse_args()
    if min(options.batch, options.rounds, options.threads) < 1:
        raise InputError(
            f"--batch, --rounds, --threads: expected 1 or more, found {options.batch}, {options.rounds}, "
            f"{options.threads}"
        )
    if options.json:
        check_place("--json", options.json)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = named(options.spec)
    # nothing dropped: a capacity counts the tokens of a call, so with it the two ways would not be
    # the same model
    model = SkySense(spec.variant(moe=spec.moe and replace(spec.moe, capacity_factor=0.0)))
    initialise(model, 0)
    model, views = model.to(device), random_views(spec, options.batch, device)
    found = {
        "spec": options.spec,
        "batch": options.batch,
        "threads": options.threads,
        "device": str(device),
        "difference": difference(model, views),
    }
    print(
        f"model {options.spec}, {options.batch} samples, {device}, {options.threads} threads; greatest difference of "
        f"the fused maps {found['difference']:.1e}"
    )
    for name, step in {"forward": forward, "forward + backward": forward_backward}.items():
        ways = {way: [partial(step, call, model, views)] for way, call in WAYS.items()}
        turns = interleaved(ways, device, options.rounds, warmup=1)
        found[name] = {way: [seconds for (seconds,) in rows] for way, rows in turns.items()}
        for way, row in found[name].items():
            ratio = times_faster(row, found[name]["packed"])
            print(
                f"{name:20}{way:16}{spread(row)['median']:8.3f} s, {ratio['median']:.2f} x packed "
                f"({ratio['min']:.2f} to {ratio['max']:.2f})",
                flush=True,
            )
    if options.json:
        write_whole(options.json, json.dumps(found, indent=1) + "\n")


def random_views(spec: ModelSpec, batch: int, device: torch.device) -> dict[str, Views]:
    """Views of the paper preset with random values, everything valid."""
    generator, views = torch.Generator().manual_seed(0), {}
    for size, (count, n) in SIZES.items():
        images, valid, days = {}, {}, {}
        for name, sensor in spec.modalities.items():
            side = n * sensor.pixels_per_cell
            image = torch.randn(
                batch, count, sensor.frames, sensor.bands, side, side, generator=generator
            )
            images[name] = image.to(device)  # B V T C H W
            valid[name] = torch.ones(
                batch, count, sensor.frames, n, n, dtype=torch.bool, device=device
            )
            days[name] = torch.zeros(batch, sensor.frames, dtype=torch.int64, device=device)
        views[size] = Views(
            images, valid, days, torch.zeros(batch, dtype=torch.int64, device=device)
        )
    return views


def packed(model: SkySense, views: dict[str, Views]) -> dict[str, Features]:
    """All modalities and view sizes through each block together."""
    return model(views)[0]


def image_by_image(model: SkySense, views: dict[str, Views]) -> dict[str, Features]:
    """A pass through tokenizer and backbone for each view and frame of each sensor; fusion as it
    is."""
    found = {size: Features({}, {}) for size in views}
    for size, inputs in views.items():
        for name, images in inputs.images.items():
            rows = []
            for v in range(images.shape[1]):
                frames = []
                for t in range(images.shape[2]):
                    part = replace(
                        inputs,
                        images={name: images[:, v : v + 1, t : t + 1]},
                        valid={name: inputs.valid[name][:, v : v + 1, t : t + 1]},
                    )
                    frames.append(
                        model.unpack({size: part}, *model.encode({size: part})[0][-1])[size]
                    )
                rows.append(frames)
            for kind in ("maps", "valid"):
                parts = [torch.cat([getattr(x, kind)[name] for x in frames], 2) for frames in rows]
                getattr(found[size], kind)[name] = torch.cat(parts, 1)  # B V T h w (D)
    model.fuse(views, found)
    return found


def one_by_one(model: SkySense, views: dict[str, Views]) -> dict[str, Features]:
    """A pass through tokenizer and backbone for each sensor and view size; fusion as it is."""
    found = {size: Features({}, {}) for size in views}
    for size, inputs in views.items():
        for name in inputs.images:
            part = replace(
                inputs, images={name: inputs.images[name]}, valid={name: inputs.valid[name]}
            )
            stages, _, _ = model.encode({size: part})
            features = model.unpack({size: part}, *stages[-1])[size]
            found[size].maps |= features.maps
            found[size].valid |= features.valid
    model.fuse(views, found)
    return found


WAYS = {"packed": packed, "a sensor": one_by_one, "an image": image_by_image}


@torch.no_grad()
def difference(model: SkySense, views: dict[str, Views]) -> float:
    """Greatest difference of the fused maps between packed and the other ways."""
    one, *others = (call(model, views) for call in WAYS.values())
    return max(
        float((one[size].maps["fused"] - other[size].maps["fused"]).abs().max())
        for other in others
        for size in views
    )


def forward(call: Way, model: SkySense, views: dict[str, Views]) -> None:
    """Without gradients."""
    with torch.no_grad():
        call(model, views)


def forward_backward(call: Way, model: SkySense, views: dict[str, Views]) -> None:
    """With the gradients of all parameters."""
    found = call(model, views)
    sum(features.maps["fused"].float().square().mean() for features in found.values()).backward()
    model.zero_grad(set_to_none=True)


if __name__ == "__main__":
    run(main)
