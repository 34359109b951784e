"""The measured step as a command: text, JSON, picture."""

import json
import os
import sys
from pathlib import Path
from typing import TextIO

import torch

from data.files import check_place, write_whole
from engine.distributed.alone import default_to_one_rank
from engine.errors import ConfigError
from engine.plot_file import check_plot, save_plot
from engine.profile.figure import picture
from engine.profile.text import text


def step_command(
    path: Path,
    overrides: list[str],
    *,
    warmup: int,
    steps: int,
    as_json: bool,
    json_file: Path | None = None,
    plot: Path | None = None,
    trace: Path | None = None,
) -> int:
    """Measure a configuration's step on all ranks; rank 0 reports.

    Only the report goes to standard output; log lines, those of DeepSpeed too, go to standard
    error. The processes are those of the environment, as a launcher sets it, or this one alone.

    Args:
        path: configuration file.
        overrides: ``place=value`` of the configuration.
        warmup: first steps, not counted.
        steps: timed steps.
        as_json: print one object instead of text.
        json_file: file for the object as well.
        plot: file for the picture.
        trace: folder for the Chrome traces; made if absent.

    Returns:
        The exit status.
    """
    output = reserve_output()
    # Only now: DeepSpeed logs to standard output from its import on.
    from engine.config.load import load
    from engine.distributed.collectives import is_first_rank, on_first_rank, together
    from engine.distributed.ranks import run_on_ranks
    from engine.doctor.report import banner
    from engine.profile.profiler import profile_step

    def work(device: torch.device, world: int) -> int:
        config = together(lambda: load(path, overrides, world_size=world))
        on_first_rank(lambda: check_outputs(json_file=json_file, plot=plot, trace=trace))
        if is_first_rank():
            print("\n".join(banner(config)), flush=True)
        figures = profile_step(config, device, warmup=warmup, steps=steps, folder=trace)
        record = {"configuration": " ".join([path.name, *overrides]), **figures}
        on_first_rank(
            lambda: publish(record, output, as_json=as_json, json_file=json_file, plot=plot)
        )
        return 0

    default_to_one_rank()
    return run_on_ranks(work)


def reserve_output() -> TextIO:
    """Return standard output; everything else that this process prints goes to standard error."""
    sys.stdout.flush()
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # below Python, so that compiled code and loggers follow
    return output


def check_outputs(*, json_file: Path | None, plot: Path | None, trace: Path | None) -> None:
    """Before the work: check that the files can be written, and make the folder of the traces.

    Raises:
        ConfigError: the picture or the folder of the traces cannot be written.
        InputError: the file of ``--json`` cannot be written.
    """
    check_plot(plot)
    if json_file is not None:
        check_place("--json", json_file)
    if trace is not None:
        try:
            trace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--trace: expected a folder that exists or can be made, found {trace} "
                f"({error.strerror})"
            ) from error


def publish(
    record: dict, output: TextIO, *, as_json: bool, json_file: Path | None, plot: Path | None
) -> None:
    """Print the report, and write the files that were asked for."""
    if json_file is not None:
        write_whole(json_file, json.dumps(record, indent=1) + "\n")
    save_plot(plot, lambda: picture(record))
    report = json.dumps(record) if as_json else text(record)
    print(report, file=output, flush=True)
