"""Options that mean the same in every command."""

import argparse
from pathlib import Path

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


def add_launcher_option(parser: argparse.ArgumentParser) -> None:
    """``--local_rank N``, which the deepspeed launcher adds; its environment says the same."""
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
