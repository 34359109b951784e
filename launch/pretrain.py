"""Pre-train SkySense V2.

deepspeed launch/pretrain.py --deepspeed_config ds_configs/demo_cpu.json
deepspeed launch/pretrain.py --deepspeed_config X.json --set skysense.schedule.steps=100 --run_dir runs/x --resume
"""

import argparse
import json

import torch
from cli import run

from engine.config.load import load
from engine.distributed.collectives import is_first_rank, together
from engine.distributed.ranks import run_on_ranks
from engine.doctor.report import banner
from engine.training.trainer import train


def main() -> int:
    """Parse the command line and train; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--deepspeed_config", required=True, help="JSON: DeepSpeed's keys and one 'skysense' object"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="PLACE=VALUE", help="override one value"
    )
    parser.add_argument("--run_dir", help="run folder (overrides skysense.run_dir)")
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
    parser.add_argument(
        "--local_rank", type=int, default=-1, help=argparse.SUPPRESS
    )  # given by the launcher
    given = parser.parse_args()
    overrides = given.set + (
        [f"skysense.run_dir={json.dumps(given.run_dir)}"] if given.run_dir else []
    )

    def work(device: torch.device, world: int) -> int:
        config = together(lambda: load(given.deepspeed_config, overrides, world))
        if is_first_rank():
            print("\n".join(banner(config)), flush=True)
        return train(config, device, given.resume, given.stop_at)

    return run_on_ranks(work)


if __name__ == "__main__":
    run(main)
