"""Every kernel against eager PyTorch, torch.compile and the best library call, in one run: values
first, then time, memory and the share of what the device reaches at best.

    python launch/bench_kernels.py --json kernels.json --plot kernels.png

On a GPU: the paper's sizes. Without one: small sizes on the CPU, of everything but the kernels.
Ends with 1 where values differ.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import torch

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.errors import InputError
from data.files import check_place, write_whole
from engine.bench.cases import experts, global_attention, head_loss, sinkhorn, window_attention
from engine.bench.ceilings import ceilings
from engine.bench.compare import compare
from engine.bench.report import picture, table
from engine.plot_file import check_plot, save_plot
from launch.cli import run

CASES = {
    "window_attention": window_attention,
    "sinkhorn": sinkhorn,
    "head_loss": head_loss,
    "experts": experts,
    "global_attention": global_attention,
}


def main() -> int:
    """Parse the command line, compare, print; 1 if values differ or one of our ways does not run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CASES,
        default=list(CASES),
        metavar="NAME",
        help=f"some of {', '.join(CASES)}",
    )
    parser.add_argument(
        "--sizes",
        choices=("paper", "small", "tiny"),
        help="paper (with a GPU), small (without), or tiny: seconds, to see that the command works",
    )
    parser.add_argument("--rounds", type=int, default=5, help="the ways take turns this often")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all figures")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw a picture (.png, .svg or .pdf)"
    )
    options = parser.parse_args()
    if min(options.rounds, options.threads) < 1:
        raise InputError(
            f"--rounds, --threads: expected 1 or more, found {options.rounds}, {options.threads}"
        )
    if options.json:
        check_place("--json", options.json)
    check_plot(options.plot)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # what DeepSpeed's layer is to run on
    sizes = options.sizes or ("paper" if device.type == "cuda" else "small")
    found = {
        "sizes": sizes,
        "rounds": options.rounds,
        "threads": options.threads,
        "device": _name(device),
        "torch": torch.__version__,
        "rates": ceilings(device, 0.1 if sizes == "tiny" else 2.0),
        "cases": [],
    }
    _print_head(found)
    for name in dict.fromkeys(options.only):
        for size in CASES[name].SIZES[sizes]:
            # past eight shapes of one function it would not compile any more, and say nothing
            torch.compiler.reset()
            case = CASES[name].case(size, device)
            found["cases"].append(compare(case, device, options.rounds, found["rates"]))
            del case  # its inputs must not lie beside those of the next
            if device.type == "cuda":
                torch.cuda.empty_cache()
            print(table(found["cases"][-1]), flush=True)
    if options.json:
        write_whole(options.json, json.dumps(found, indent=1) + "\n")
    save_plot(options.plot, lambda: picture(found))
    failed = [f"{case['case']}, {case['size']}" for case in found["cases"] if case["failed"]]
    for one in failed:
        print(f"FAILED: {one}")
    return 1 if failed else 0


def _name(device: torch.device) -> str:
    """The card, or the processor's kind."""
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    )


def _print_head(found: dict) -> None:
    """What was measured on, and the ceilings."""
    rates = found["rates"]
    products = ", ".join(
        f"{rate / 1e12:.3g} TFLOP/s in {name.removeprefix('torch.')}"
        for name, rate in rates.items()
        if name != "copy"
    )
    print(
        f"{found['device']}, {found['threads']} CPU threads, torch {found['torch']}; {found['sizes']} sizes, "
        f"{found['rounds']} rounds in turns\nceilings: copies {rates['copy'] / 1e9:.1f} GB/s, products {products}\n"
        "goals are set for an H200",
        flush=True,
    )


if __name__ == "__main__":
    run(main)
