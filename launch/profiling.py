"""What a model and its training cost: parameters, FLOPs, and measured steps.

python launch/profiling.py params [--spec experts_16]
python launch/profiling.py flops --preset paper
python launch/profiling.py step --deepspeed_config ds_configs/one_gpu.json --set skysense.data.shards=shards
deepspeed launch/profiling.py step --deepspeed_config ds_configs/paper_128gpu.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from launch.cli import run


def main() -> int:
    """Parse the command line and call one of the three; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--local_rank", type=int, default=-1, help=argparse.SUPPRESS
    )  # given by the launcher
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("params", "flops", "step"):
        command = commands.add_parser(name)
        command.add_argument(
            "--json", action="store_true", help="print one JSON object instead of tables"
        )
        command.add_argument(
            "--plot", type=Path, metavar="FILE", help="also draw a picture (.png, .svg or .pdf)"
        )
    params = commands.choices["params"]
    params.add_argument(
        "--spec",
        metavar="NAME",
        help="one model of models/variants.py instead of the paper's counts",
    )
    params.add_argument(
        "--config", type=Path, metavar="FILE", help="or the model of a configuration file"
    )
    params.add_argument(
        "--set", action="append", default=[], metavar="PLACE=VALUE", help="override one value of it"
    )
    flops = commands.choices["flops"]
    flops.add_argument(
        "--preset", metavar="NAME", help="a file of ds_configs: paper, one_gpu or demo"
    )
    flops.add_argument("--config", type=Path, metavar="FILE", help="or any configuration file")
    flops.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PLACE=VALUE",
        help="override a value, e.g. skysense.data.views.global_cells=12 (repeatable)",
    )
    step = commands.choices["step"]
    step.add_argument(
        "--deepspeed_config",
        type=Path,
        required=True,
        metavar="FILE",
        help="configuration of the run",
    )
    step.add_argument(
        "--set", action="append", default=[], metavar="PLACE=VALUE", help="override one value"
    )
    step.add_argument(
        "--steps", type=int, default=20, metavar="N", help="steps that are timed (20)"
    )
    step.add_argument("--warmup", type=int, default=3, metavar="N", help="steps before them (3)")
    step.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="also write the JSON object to a file: under a launcher "
        "the standard output has the launcher's lines too",
    )
    step.add_argument(
        "--trace",
        type=Path,
        metavar="FOLDER",
        help="keep a Chrome trace of one step, a file a rank",
    )
    given = parser.parse_args()
    if given.command == "flops":
        from engine.cost.report import flops_command

        flops_command(given.preset, given.config, given.set, given.json, given.plot)
        return 0
    if given.command == "step":
        from engine.profile.report import step_command

        return step_command(
            given.deepspeed_config,
            given.set,
            given.warmup,
            given.steps,
            given.json,
            given.out,
            given.plot,
            given.trace,
        )
    from engine.cost.parameter_table import params_command

    params_command(given.spec, given.config, given.set, given.json, given.plot)
    return 0


if __name__ == "__main__":
    run(main)
