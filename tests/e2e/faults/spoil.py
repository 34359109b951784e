"""Makes a rank's next input or gradient not a number, as a fault of memory or of a kernel would.

Or the gradient of some samples whenever they are used, as bad data would.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.stream.sample import Batch
from engine.distributed import zero
from engine.training import step
from models.features import Views

INPUT = "input"
GRADIENT = "gradient"


_ALWAYS = "always"
_SAMPLES = "samples"


def ask(run_dir: Path, what: str, rank: int, *, always: bool = False) -> None:
    """Ask a rank, which was started with ``install``, to spoil its next step, or all from then."""
    file = _file(run_dir, what, rank)
    if always:
        file.write_text(_ALWAYS)
    else:
        file.touch()


def ask_for(run_dir: Path, keys: Sequence[str]) -> None:
    """Ask all ranks that will be started with ``install`` to spoil the gradient of samples."""
    run_dir.with_name(f"spoil-{run_dir.name}-{_SAMPLES}").write_text(json.dumps(keys))


def install(run_dir: Path, rank: int) -> None:
    """Let this process heed what it is asked."""
    to_views = step.to_views
    initialize = zero.initialize
    keys = _keys(run_dir)
    is_bad = False

    def spoiled_views(batch: Batch, device: torch.device) -> dict[str, Views]:
        nonlocal is_bad
        is_bad = not keys.isdisjoint(batch.keys)
        views = to_views(batch, device)
        if _take(run_dir, INPUT, rank):
            for of_size in views.values():
                for images in of_size.images.values():
                    images.fill_(torch.nan)
        return views

    def spoiled_gradient(gradient: Tensor) -> Tensor:
        if is_bad or _take(run_dir, GRADIENT, rank):
            return gradient * torch.nan
        return gradient

    def engine_with_hook(*arguments: Any) -> Any:
        engine = initialize(*arguments)
        next(engine.module.parameters()).register_hook(spoiled_gradient)
        return engine

    step.to_views = spoiled_views
    zero.initialize = engine_with_hook


def _keys(run_dir: Path) -> set[str]:
    """The samples that are to be spoilt."""
    file = run_dir.with_name(f"spoil-{run_dir.name}-{_SAMPLES}")
    if not file.exists():
        return set()
    return set(json.loads(file.read_text()))


def _take(run_dir: Path, what: str, rank: int) -> bool:
    """Whether something is asked of this rank."""
    file = _file(run_dir, what, rank)
    if not file.exists():
        return False
    if file.read_text() != _ALWAYS:
        file.unlink()
    return True


def _file(run_dir: Path, what: str, rank: int) -> Path:
    return run_dir.with_name(f"spoil-{what}-{rank}")
