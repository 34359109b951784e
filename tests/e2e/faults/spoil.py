"""Makes a rank's next input or gradient not a number, as a fault of memory or of a kernel would."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.distributed import zero
from engine.training import step

INPUT = "input"
GRADIENT = "gradient"


_ALWAYS = "always"


def ask(run_dir: Path, what: str, rank: int, *, always: bool = False) -> None:
    """Ask a rank, which was started with ``install``, to spoil its next step, or all from then."""
    file = _file(run_dir, what, rank)
    if always:
        file.write_text(_ALWAYS)
    else:
        file.touch()


def install(run_dir: Path, rank: int) -> None:
    """Let this process heed what it is asked."""
    to_views = step.to_views
    initialize = zero.initialize

    def spoiled_views(*arguments: Any) -> Any:
        views = to_views(*arguments)
        if _take(run_dir, INPUT, rank):
            for batch in views.values():
                for images in batch.images.values():
                    images.fill_(torch.nan)
        return views

    def spoiled_gradient(gradient: Tensor) -> Tensor:
        if _take(run_dir, GRADIENT, rank):
            return gradient * torch.nan
        return gradient

    def engine_with_hook(*arguments: Any) -> Any:
        engine = initialize(*arguments)
        next(engine.module.parameters()).register_hook(spoiled_gradient)
        return engine

    step.to_views = spoiled_views
    zero.initialize = engine_with_hook


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
