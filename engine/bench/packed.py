"""One packed forward pass against many small ones: equal values first, then time, in one run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from data.errors import InputError
from data.stream.settings import ViewSettings
from engine.bench.timing import interleaved, spread, times_faster
from models.features import FUSED, Features, Views
from models.initialise import initialise
from models.skysense import SkySense
from models.spec import ModelSpec
from models.variants import named

Forward = Callable[[SkySense, Mapping[str, Views]], dict[str, Features]]
Say = Callable[[str], None]


def compare_packed(
    name: str, *, batch: int, rounds: int, threads: int, say: Say = print
) -> dict[str, Any]:
    """Check that all forms of the forward pass agree, and time them in turns.

    Args:
        name: A model of models/variants.py.
        batch: Samples.
        rounds: Timed calls of each form.
        threads: Threads of the CPU.
        say: Called with each line of the result.

    Returns:
        All figures, ready for JSON: seconds of each round in ``forward`` and
        ``forward + backward``, and the greatest difference of the fused maps.

    Raises:
        InputError: A number below 1.
    """
    if min(batch, rounds, threads) < 1:
        raise InputError(
            f"--batch, --rounds, --threads: expected 1 or more, found {batch}, {rounds}, {threads}"
        )
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = named(name)
    model = undropped_model(spec).to(device)
    views = random_views(spec, batch, device)
    comparison: dict[str, Any] = {
        "spec": name,
        "batch": batch,
        "threads": threads,
        "device": str(device),
        "difference": difference(model, views),
    }
    say(
        f"model {name}, {batch} samples, {device}, {threads} threads; "
        f"greatest difference of the fused maps {comparison['difference']:.1e}"
    )
    for title, step in (("forward", forward), ("forward + backward", forward_backward)):
        calls = {form: [partial(step, call, model, views)] for form, call in FORMS.items()}
        turns = interleaved(calls, device, rounds, warmup=1)
        seconds = {form: [phases[0] for phases in rows] for form, rows in turns.items()}
        comparison[title] = seconds
        for form, times in seconds.items():
            ratio = times_faster(times, seconds["packed"])
            say(
                f"{title:20}{form:16}{spread(times)['median']:8.3f} s, "
                f"{ratio['median']:.2f} x packed ({ratio['min']:.2f} to {ratio['max']:.2f})"
            )
    return comparison


def undropped_model(spec: ModelSpec) -> SkySense:
    """A model whose experts drop no token.

    A capacity counts the tokens of a call, so with one the forms would not be the same model.
    """
    if spec.moe is not None:
        spec = spec.variant(moe=replace(spec.moe, capacity_factor=0.0))
    model = SkySense(spec)
    initialise(model, 0)
    return model


def random_views(spec: ModelSpec, batch: int, device: torch.device) -> dict[str, Views]:
    """Views of the paper preset with random values, everything valid."""
    generator = torch.Generator().manual_seed(0)
    views = {}
    for size, kind in ViewSettings().sizes.items():
        images = {}
        valid = {}
        days = {}
        for name, sensor in spec.modalities.items():
            frames = sensor.frames
            side = kind.pixels[name]
            lead = (batch, kind.count, frames)
            pixels = torch.randn(*lead, sensor.bands, side, side, generator=generator)
            images[name] = pixels.to(device)  # B V T C H W
            mask = torch.ones(*lead, side, side, dtype=torch.bool)
            valid[name] = mask.to(device)  # B V T H W
            days[name] = torch.zeros(lead, dtype=torch.int64, device=device)  # B V T
        regions = torch.zeros(batch, dtype=torch.int64, device=device)  # B
        views[size] = Views(images, valid, days, regions)
    return views


# ---- forms of the forward pass


def packed(model: SkySense, views: Mapping[str, Views]) -> dict[str, Features]:
    """All modalities and view sizes through each block together."""
    return model(views)[0]


def one_by_one(model: SkySense, views: Mapping[str, Views]) -> dict[str, Features]:
    """A pass through tokenizer and backbone for each sensor and view size; fusion as it is."""
    features = {size: Features({}, {}) for size in views}
    for size, inputs in views.items():
        for name in inputs.images:
            part = replace(
                inputs, images={name: inputs.images[name]}, valid={name: inputs.valid[name]}
            )
            encoded = _encode(model, size, part)
            features[size].maps |= encoded.maps
            features[size].valid |= encoded.valid
    model.fuse(views, features)
    return features


def image_by_image(model: SkySense, views: Mapping[str, Views]) -> dict[str, Features]:
    """A pass through tokenizer and backbone for each view and frame of each sensor."""
    features = {size: Features({}, {}) for size in views}
    for size, inputs in views.items():
        for name in inputs.images:
            maps, valid = _encode_images(model, size, inputs, name)
            features[size].maps[name] = maps
            features[size].valid[name] = valid
    model.fuse(views, features)
    return features


def _encode_images(
    model: SkySense, size: str, inputs: Views, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps (B V T h w D) and validity (B V T h w) of one sensor, image by image."""
    _, views, frames = inputs.images[name].shape[:3]
    map_rows = []
    valid_rows = []
    for v in range(views):
        maps = []
        valid = []
        for t in range(frames):
            part = replace(
                inputs,
                images={name: inputs.images[name][:, v : v + 1, t : t + 1]},
                valid={name: inputs.valid[name][:, v : v + 1, t : t + 1]},
            )
            encoded = _encode(model, size, part)
            maps.append(encoded.maps[name])  # B 1 1 h w D
            valid.append(encoded.valid[name])  # B 1 1 h w
        map_rows.append(torch.cat(maps, 2))  # B 1 T h w D
        valid_rows.append(torch.cat(valid, 2))  # B 1 T h w
    return torch.cat(map_rows, 1), torch.cat(valid_rows, 1)


def _encode(model: SkySense, size: str, inputs: Views) -> Features:
    """Backbone features of some images of one view size."""
    stages, _ = model.encode({size: inputs})
    return model.unpack({size: inputs}, *stages[-1])[size]


FORMS: dict[str, Forward] = {
    "packed": packed,
    "a sensor": one_by_one,
    "an image": image_by_image,
}


# ---- values and steps


@torch.no_grad()
def difference(model: SkySense, views: Mapping[str, Views]) -> float:
    """Greatest difference of the fused maps between packed and the other forms."""
    reference, *others = (call(model, views) for call in FORMS.values())
    differences = []
    for other in others:
        for size in views:
            apart = reference[size].maps[FUSED] - other[size].maps[FUSED]  # B V 1 h w D
            differences.append(apart.abs().max())
    return torch.stack(differences).max().item()


def forward(call: Forward, model: SkySense, views: Mapping[str, Views]) -> None:
    """Without gradients."""
    with torch.no_grad():
        call(model, views)


def forward_backward(call: Forward, model: SkySense, views: Mapping[str, Views]) -> None:
    """With the gradients of all parameters."""
    losses = []
    for features in call(model, views).values():
        losses.append(features.maps[FUSED].float().square().mean())
    torch.stack(losses).sum().backward()
    model.zero_grad(set_to_none=True)
