"""The command ``skysense NAME ...``; ``python -m launch NAME ...`` is the same.

A command is a file of this folder with three things: ``EXAMPLES`` (the end of its help),
``add_arguments(parser)`` and ``run(options)``, which returns the exit status (None is 0).
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch import __version__, cli
from launch.options import add_launcher_option


@dataclass(frozen=True)
class Command:
    """Where a command is written, and its line in the help."""

    module: str
    summary: str


COMMANDS = {
    "prepare": Command("launch.prepare", "raster files to an archive of co-registered tiles"),
    "shards": Command("launch.shards", "archive to training shards"),
    "sensors": Command("launch.sensors", "the sensors with bands, units and statistics"),
    "audit": Command("launch.audit", "check every member of a dataset and write a page about it"),
    "inspect": Command("launch.inspect_sample", "draw one sample as training sees it"),
    "classes": Command("launch.classes", "the table of land-cover classes as a page"),
    "pretrain": Command("launch.pretrain", "pre-train a model"),
    "report": Command("launch.report", "write the report of a run"),
    "evaluate": Command("launch.evaluate", "what a model's features are worth on labelled tiles"),
    "learning_set": Command("launch.learning_set", "tiles and labels of a small labelled set"),
    "export": Command("launch.export", "trained weights to one file that loads without DeepSpeed"),
    "compare": Command("launch.compare", "compare the losses of several runs step by step"),
    "doctor": Command("launch.doctor", "what is active on this machine, and what a run would lack"),
    "preflight": Command("launch.preflight", "look at every node before a run begins"),
    "plan": Command("launch.plan", "memory, exchange, time and cost of a run, without a GPU"),
    "wheels": Command("launch.wheels", "collect the packages for a machine without a network"),
    "params": Command("launch.params", "number of parameters, beside the paper's"),
    "flops": Command("launch.flops", "cost of a training step in FLOPs"),
    "step": Command("launch.step", "measure real training steps"),
}
BENCHMARKS = {
    "kernels": Command("launch.bench_kernels", "kernels against eager and compiled PyTorch"),
    "packed": Command("launch.bench_packed", "one packed forward pass against many small ones"),
    "data": Command("launch.bench_data", "our data stream against webdataset and rasterio"),
    "codecs": Command("launch.bench_codecs", "size and decoding time of image codecs"),
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line ``words`` (default: that of this process) and leave the process."""
    if words is None:
        words = sys.argv[1:]
    cli.run(lambda: dispatch(words))


def dispatch(words: Sequence[str]) -> int | None:
    """Run one command; returns its exit status."""
    options = build_parser(words).parse_args(words)
    return options.run(options)


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for a command line; only the command that ``words`` names is imported."""
    named = [word for word in words if not word.startswith("-")]
    parser = argparse.ArgumentParser(
        prog="skysense",
        description="Pre-training of SkySense V2, from satellite files to a trained model.",
        epilog="skysense COMMAND --help shows the options of a command and an example.",
    )
    parser.add_argument("--version", action="version", version=f"skysense {__version__}")
    add_launcher_option(parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_commands(commands, COMMANDS, called=named[:1])
    bench = commands.add_parser(
        "bench",
        help="time parts of the engine against their alternatives",
        description="Time a part of the engine against its alternatives.",
        epilog="skysense bench BENCHMARK --help shows the options of one and an example.",
    )
    benchmarks = bench.add_subparsers(metavar="BENCHMARK", required=True)
    called = []
    if named[:1] == ["bench"]:
        called = named[1:2]
    _add_commands(benchmarks, BENCHMARKS, called=called)
    return parser


def _add_commands(
    group: argparse._SubParsersAction, commands: Mapping[str, Command], called: Sequence[str]
) -> None:
    """A line of help for each command, and the options of the one that is called."""
    for name, command in commands.items():
        if name not in called:
            group.add_parser(name, help=command.summary)
            continue
        module = importlib.import_module(command.module)
        parser = group.add_parser(
            name,
            help=command.summary,
            description=module.__doc__,
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        parser.set_defaults(run=module.run)


if __name__ == "__main__":
    main()
