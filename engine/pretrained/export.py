"""Trained weights as one safetensors file and one JSON file, for use without the engine."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint.tensor_file import write_tensors
from engine.errors import ConfigError
from engine.pretrained.source import SPEC, TEACHER, WEIGHTS, Source, divergence, locate, read
from engine.pretrained.weights import TRUNK

FORMAT = 1
EXACT = "context.prototypes"  # stays float32 in every export, as in the model
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(
    path: Path,
    out: Path,
    weights: str = TEACHER,
    *,
    dtype: str = "float32",
    heads: bool = False,
) -> list[str]:
    """Write ``model.safetensors`` and ``spec.json`` into the new folder ``out``.

    Args:
        path: Run folder, checkpoint, or another export.
        out: The new folder.
        weights: "teacher" or "student".
        dtype: "float32" (the same bits as the average), "bfloat16" or "float16".
        heads: Also what only pre-training needs: projection heads, query decoder, text projection.

    Returns:
        Lines that say what was written.

    Raises:
        ConfigError: The arguments cannot be met. Nothing is left behind.
        InputError: There are no weights at the path. Nothing is left behind.
    """
    _check(out, dtype)
    source = read(path, weights)
    outline = {}
    for name, tensor in source.outline.items():
        if heads or name.startswith(TRUNK):
            outline[name] = _cast(name, tensor, TYPES[dtype])
    contents = (_cast(name, source.state[name], TYPES[dtype]) for name in outline)
    description = {
        "format": FORMAT,
        "source": locate(path).name,
        "dtype": dtype,
        **source.description,
    }
    _write(out, outline, contents, description)
    lines = [_summary(out, outline, source, dtype=dtype, heads=heads)]
    warning = divergence(path)
    if warning is not None:
        lines.append(warning)
    return lines


def _check(out: Path, dtype: str) -> None:
    """Raise ConfigError for a wrong type, or for a folder that cannot be made."""
    if dtype not in TYPES:
        raise ConfigError(f"--dtype: expected one of {', '.join(TYPES)}, found {dtype}")
    if out.exists():
        raise ConfigError(
            f"--out: expected the name of a new folder, found {out}, which exists; choose another"
        )
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: expected a new folder in one that exists, found {out}")


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the type that it has in an export."""
    if tensor.is_floating_point() and not name.endswith(EXACT):
        return tensor.to(dtype)
    return tensor


def _write(
    out: Path,
    outline: dict[str, Tensor],
    contents: Iterable[Tensor],
    description: dict[str, Any],
) -> None:
    """Write both files into a hidden folder, which gets its name when they are complete.

    Args:
        out: The folder's name.
        outline: Shapes and types of the tensors, by name.
        contents: The tensors in that order, one in memory at a time.
        description: What the second file says.
    """
    hidden = out.with_name(f".unfinished-{out.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    try:
        write_tensors(hidden / WEIGHTS, outline, {"format": "pt"}, contents=contents)
        (hidden / SPEC).write_text(json.dumps(description, indent=1) + "\n")
        hidden.rename(out)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _summary(
    out: Path, outline: dict[str, Tensor], source: Source, *, dtype: str, heads: bool
) -> str:
    """What was written, in one line."""
    count = sum(tensor.numel() for tensor in outline.values())
    with_heads = "without"
    if heads:
        with_heads = "with"
    return (
        f"{out}: {source.description['weights']} of step {source.description['step']}, "
        f"{len(outline)} tensors, {count / 1e6:.2f} M numbers in {dtype}, "
        f"{with_heads} the heads of pre-training"
    )
