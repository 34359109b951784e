"""All kernels against their alternatives, in one run."""

import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch

from data.errors import InputError
from engine.bench.cases import experts, global_attention, head_loss, sinkhorn, window_attention
from engine.bench.ceilings import ceilings
from engine.bench.compare import compare
from engine.bench.report import table

CASES = {
    "window_attention": window_attention,
    "sinkhorn": sinkhorn,
    "head_loss": head_loss,
    "experts": experts,
    "global_attention": global_attention,
}
SIZES = ("paper", "small", "tiny")
CEILING_SECONDS = 2.0  # of measuring what the device reaches at best
Say = Callable[[str], None]


def compare_kernels(
    names: Sequence[str],
    *,
    sizes: str | None,
    rounds: int,
    threads: int,
    say: Say = print,
) -> dict:
    """Compare the cases of ``names`` at all sizes of one kind.

    Args:
        names: Keys of ``CASES``.
        sizes: One of ``SIZES``; None takes the paper's with a GPU, small ones without.
        rounds: How often the candidates take turns.
        threads: Threads of the CPU.
        say: Called with the table of each case.

    Returns:
        All figures, ready for JSON.

    Raises:
        InputError: Fewer than one round or thread.
    """
    if min(rounds, threads) < 1:
        raise InputError(f"--rounds, --threads: expected 1 or more, found {rounds}, {threads}")
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # what DeepSpeed's layer is to run on
    if sizes is None:
        sizes = "paper" if device.type == "cuda" else "small"
    seconds = 0.1 if sizes == "tiny" else CEILING_SECONDS
    comparison: dict[str, Any] = {
        "sizes": sizes,
        "rounds": rounds,
        "threads": threads,
        "device": device_name(device),
        "torch": torch.__version__,
        "rates": ceilings(device, seconds),
        "cases": [],
    }
    say(headline(comparison))
    for name in dict.fromkeys(names):
        for size in CASES[name].SIZES[sizes]:
            # past eight shapes of one function it would not compile any more, and say nothing
            torch.compiler.reset()
            case = CASES[name].case(size, device)
            result = compare(case, device, rounds, comparison["rates"])
            comparison["cases"].append(result)
            del case  # its inputs must not lie beside those of the next
            if device.type == "cuda":
                torch.cuda.empty_cache()
            say(table(result))
    return comparison


def device_name(device: torch.device) -> str:
    """The card, or the processor's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU"


def headline(comparison: dict) -> str:
    """What was measured on, and the ceilings."""
    rates = dict(comparison["rates"])
    copies = rates.pop("copy") / 1e9
    products = []
    for name, rate in rates.items():
        products.append(f"{rate / 1e12:.3g} TFLOP/s in {name.removeprefix('torch.')}")
    return (
        f"{comparison['device']}, {comparison['threads']} CPU threads, "
        f"torch {comparison['torch']}; {comparison['sizes']} sizes, "
        f"{comparison['rounds']} rounds in turns\n"
        f"ceilings: copies {copies:.1f} GB/s, products {', '.join(products)}\n"
        "goals are set for an H200"
    )
