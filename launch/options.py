"""Options that mean the same in every command."""

import argparse
from pathlib import Path

from data.errors import InputError
from data.jobs.places import Place, Running, Slurm

STANDARD_OUTPUT = Path("-")  # --json without a file name


def add_config_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """``--config FILE`` (``options.config``) and ``--set PLACE=VALUE`` (``options.overrides``)."""
    parser.add_argument(
        "--config",
        "--deepspeed_config",
        dest="config",
        type=Path,
        required=required,
        metavar="FILE",
        help="configuration: JSON with DeepSpeed's keys and one 'skysense' object",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="PLACE=VALUE",
        help="override one value of it, e.g. skysense.schedule.steps=100 (repeatable)",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json [FILE]`` (``options.json``)."""
    parser.add_argument(
        "--json",
        nargs="?",
        type=Path,
        const=STANDARD_OUTPUT,
        metavar="FILE",
        help="print one JSON object instead of text, or write it to FILE as well",
    )


def add_plot_option(parser: argparse.ArgumentParser) -> None:
    """``--plot FILE`` (``options.plot``)."""
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw a picture (.png, .svg or .pdf)"
    )


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """``--workers N`` (``options.workers``)."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one a core; 0: work in this one)",
    )


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """``--scheduler ADDRESS``, ``--slurm`` and what belongs to it; see ``place_of``."""
    group = parser.add_argument_group(
        "more than one machine",
        "all of them must see the same files and run the same program (docs/preparing_at_scale.md)",
    )
    place = group.add_mutually_exclusive_group()
    place.add_argument(
        "--scheduler", metavar="ADDRESS", help="work on the Dask cluster with this scheduler"
    )
    place.add_argument(
        "--slurm",
        action="store_true",
        help="start the workers as jobs of SLURM, --workers N of them",
    )
    group.add_argument("--slurm_partition", metavar="NAME", help="partition of the jobs")
    group.add_argument("--slurm_account", metavar="NAME", help="account that pays for the jobs")
    group.add_argument(
        "--slurm_cores", type=int, default=1, metavar="N", help="workers, and cores, of a job (1)"
    )
    group.add_argument("--slurm_memory", default="4GB", metavar="SIZE", help="of a job (4GB)")
    group.add_argument("--slurm_walltime", metavar="HH:MM:SS", help="of a job")
    group.add_argument(
        "--slurm_interface", metavar="NAME", help="network interface of all, such as ib0"
    )
    group.add_argument(
        "--slurm_logs", metavar="FOLDER", help="for the output of the jobs (default: thrown away)"
    )


def place_of(options: argparse.Namespace) -> Place:
    """Where the options say that the processes are.

    Raises:
        InputError: an option does not fit the others.
    """
    fields = {}
    for name in ("partition", "account", "cores", "memory", "walltime", "interface", "logs"):
        fields[name] = getattr(options, f"slurm_{name}")
    if options.slurm:
        return Slurm(**fields)
    for name, value in fields.items():
        if value != getattr(Slurm(), name):
            raise InputError(f"--slurm_{name}: is an option of --slurm, which was not given")
    if options.scheduler is None:
        return None
    if options.workers is not None:
        raise InputError("--workers: a running cluster has its workers; leave it out")
    return Running(options.scheduler)


def add_launcher_option(parser: argparse.ArgumentParser) -> None:
    """``--local_rank N``, which the deepspeed launcher adds; its environment says the same."""
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
