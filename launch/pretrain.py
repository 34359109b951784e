"""Pre-train SkySense V2.

This file is also the script that the deepspeed launcher starts on every rank.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine.resilience.signals import Signals
from launch import cli
from launch.options import add_config_options, add_launcher_option

if TYPE_CHECKING:
    import torch

EXAMPLES = """\
  deepspeed launch/pretrain.py --config ds_configs/demo_cpu.json --run_dir runs/a
  deepspeed --module launch pretrain --config ds_configs/demo_cpu.json --run_dir runs/a --resume
  skysense pretrain --config ds_configs/demo_one_process.json --run_dir runs/b --stop_at 2

The first two start a rank for each GPU of this machine (--num_gpus 2: two ranks, also without
a GPU); this file needs a multiple of two ranks. The last one runs in one process."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_config_options(parser, required=True)
    parser.add_argument(
        "--run_dir", metavar="FOLDER", help="run folder (overrides skysense.run_dir)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from the newest checkpoint of the run folder, or from the one given",
    )
    parser.add_argument(
        "--stop_at", type=int, metavar="STEP", help="save and stop before this step"
    )


def run(options: argparse.Namespace) -> int:
    """Train as a rank of a launcher, or without one in this process alone."""
    signals = Signals()
    from engine.distributed.alone import default_to_one_rank

    default_to_one_rank()
    return train_on_ranks(options, signals)


def train_on_ranks(options: argparse.Namespace, signals: Signals) -> int:
    """Train as one of the ranks that the environment names; returns the exit status."""
    # Imported here, because it takes many seconds, in which a signal must be heard already.
    from engine.config.load import load
    from engine.distributed.collectives import is_first_rank, together
    from engine.distributed.ranks import run_on_ranks
    from engine.doctor.report import banner
    from engine.training.trainer import train

    overrides = list(options.overrides)
    if options.run_dir is not None:
        overrides.append(f"skysense.run_dir={json.dumps(options.run_dir)}")

    def work(device: "torch.device", world: int) -> int:
        config = together(lambda: load(options.config, overrides, world_size=world))
        if is_first_rank():
            print("\n".join(banner(config)), flush=True)
        return train(config, device, signals, resume=options.resume, stop_at=options.stop_at)

    return run_on_ranks(work)


def main() -> int:
    """The script: parse the command line and train; returns the exit status."""
    signals = Signals()
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name,
        description=__doc__,
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    add_launcher_option(parser)
    return train_on_ranks(parser.parse_args(), signals)


if __name__ == "__main__":
    cli.run(main)
