"""Trained weights as one safetensors file and one JSON file, for use without the engine."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from data.tiles.modalities import MODALITIES
from engine.errors import ConfigError
from engine.pretrained.weights import SPEC, TRUNK, WEIGHTS, locate, read

FORMAT = 1
EXACT = "context.prototypes"  # stays float32 in every export, as in the model
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(
    path: Path, out: Path, weights: str = "teacher", dtype: str = "float32", heads: bool = False
) -> list[str]:
    """Write ``model.safetensors`` and ``spec.json`` into the new folder ``out``; returns lines that
    say what.

    Args:
        path: run folder, checkpoint, or another export.
        weights: "teacher" or "student".
        dtype: "float32" (the very bits of the average), "bfloat16" or "float16".
        heads: also what only pre-training needs: projection heads, query decoder, text projection.

    Raises:
        ConfigError, InputError: one line; nothing is left behind.
    """
    if dtype not in TYPES:
        raise ConfigError(f"--dtype: expected one of {', '.join(TYPES)}, found {dtype}")
    if out.exists():
        raise ConfigError(
            f"--out: expected the name of a new folder, found {out}, which exists; choose another"
        )
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: expected a new folder in one that exists, found {out}")
    source = read(path, weights)
    tensors = {
        name: x if name.endswith(EXACT) or not x.is_floating_point() else x.to(TYPES[dtype])
        for name, x in source.state.items()
        if heads or name.startswith(TRUNK)
    }
    description = {
        "format": FORMAT,
        "source": locate(path).name,
        "dtype": dtype,
    } | source.description
    description["sensors"] = {name: _sensor(name) for name in description["bands"]}
    hidden = out.with_name(f".unfinished-{out.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    try:
        save_file(
            {name: x.contiguous() for name, x in tensors.items()},
            hidden / WEIGHTS,
            {"format": "pt"},
        )
        (hidden / SPEC).write_text(json.dumps(description, indent=1) + "\n")
        hidden.rename(out)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    count = sum(x.numel() for x in tensors.values())
    return [
        f"{out}: {description['weights']} of step {description['step']}, {len(tensors)} tensors, "
        f"{count / 1e6:.2f} M numbers in {dtype}, {'with' if heads else 'without'} the heads of pre-training"
    ]


def _sensor(name: str) -> dict:
    """How a sensor's pixels become the model's input: (x / scale - mean) / std by band."""
    sensor = MODALITIES[name]
    return {
        "title": sensor.title,
        "bands": sensor.bands,
        "gsd": sensor.gsd,
        "scale": sensor.scale,
        "mean": sensor.mean,
        "std": sensor.std,
    }
