"""Where a step's first value that is not finite arose: rank, samples, module and loss terms."""

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from data.stream.sample import Batch
from engine.distributed.collectives import collect

INPUT = "the input"
LOSSES = "the losses"


@dataclass(frozen=True)
class Trouble:
    """What one rank knows of a step that was not finite.

    Attributes:
        rank: this rank.
        host: its host.
        order: place of the module in the forward pass, 0 for the input; None: all were finite.
        place: name of the module, ``INPUT``, or ``LOSSES`` behind all modules.
        keys: samples whose input is not finite; if there are none, all of this rank.
        terms: loss terms that are not finite.
    """

    rank: int
    host: str
    order: int | None
    place: str
    keys: list[str]
    terms: list[str]


def find_trouble(
    model: nn.Module,
    forward: Callable[[], Any],
    batch: Batch,
    terms: Mapping[str, Tensor],
    *,
    rank: int,
) -> Trouble:
    """Look for the first value that is not finite. Every rank must call it.

    Args:
        model: The student.
        forward: Calls it again, as in the step.
        batch: This rank's.
        terms: Loss terms by name.
        rank: This rank.
    """
    keys = _bad_samples(batch)
    first = _first_module(model, forward) or (None, LOSSES)
    if keys:
        first = (0, INPUT)
    return Trouble(
        rank=rank,
        host=socket.gethostname(),
        order=first[0],
        place=first[1],
        keys=keys or list(batch.keys),
        terms=[name for name, value in terms.items() if not torch.isfinite(value).all()],
    )


def guilty(own: Trouble) -> list[Trouble]:
    """The ranks on which the trouble began. Every rank must call it.

    A value that is not finite travels to other ranks with the tokens of an expert. It began where
    the first module is early.
    """
    troubles = collect(lambda: own)
    orders = [trouble.order for trouble in troubles if trouble.order is not None]
    if not orders:
        return [trouble for trouble in troubles if trouble.terms] or troubles
    return [trouble for trouble in troubles if trouble.order == min(orders)]


def own_keys(troubles: list[Trouble], rank: int) -> list[str]:
    """The samples of a rank on which the trouble began; none of other ranks."""
    for trouble in troubles:
        if trouble.rank == rank:
            return trouble.keys
    return []


def describe(step: int, troubles: list[Trouble]) -> list[str]:
    """A line for each rank on which the trouble began."""
    lines = []
    for trouble in troubles:
        line = (
            f"step {step + 1} is not finite, first on rank {trouble.rank} on {trouble.host}, in "
            f"{trouble.place}, samples {', '.join(trouble.keys)}"
        )
        if trouble.terms:
            line += f"; loss terms {', '.join(trouble.terms)}"
        lines.append(line)
    return lines


def bad_gradients(step: int, loss: float) -> str:
    """A line for a step that was skipped although no rank's loss shows why."""
    return (
        f"step {step + 1} was skipped on all ranks: its loss is finite and its gradients are not "
        f"(loss {loss:.4f}); lower the learning rate if it comes back"
    )


def _bad_samples(batch: Batch) -> list[str]:
    """Keys of the samples whose images hold values that are not finite."""
    bad = set()
    for views in batch.views.values():
        for images in views.images.values():
            for slot, image in enumerate(images):
                if not torch.isfinite(image).all():
                    bad.add(slot)
    return [batch.keys[slot] for slot in sorted(bad)]


def _first_module(model: nn.Module, forward: Callable[[], Any]) -> tuple[int, str] | None:
    """Place and name of the first module whose result is not finite; None if all are."""
    found: list[tuple[int, str]] = []
    calls = 0

    def watch(name: str) -> Callable:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            nonlocal calls
            calls += 1
            if found:
                return
            if not all(torch.isfinite(tensor).all() for tensor in _tensors(result)):
                found.append((calls, name))

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return None
    return found[0]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors of real numbers in a module's result."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _tensors(entry)
