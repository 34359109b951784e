"""The measured step as a command: text, JSON, picture."""

import json
import os
import sys
from pathlib import Path
from typing import TextIO

import torch

from data.files import check_place, write_whole
from engine.errors import ConfigError
from engine.plot_file import check_plot, save_plot
from engine.profile.figure import picture, place, short

ROWS = 15  # of the table of operators
GIGA, TERA, GIB = 1e9, 1e12, 2**30


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
    """Measure a configuration's step on all ranks; rank 0 reports. Returns the exit code.

    Only the report goes to the standard output; log lines, DeepSpeed's too, go to the error stream.
    The processes are those of the environment, as a launcher sets it, or this one alone.

    Args:
        path, overrides: as for ``engine.config.load.load``.
        warmup, steps: not counted and timed.
        as_json: one object instead of text.
        json_file: file for the object as well.
        plot: file for the picture.
        trace: folder for the Chrome traces; made if absent.
    """
    report = own_output()
    from engine.config.load import load

    # only now: DeepSpeed logs to the output from its import on
    from engine.distributed.collectives import (
        is_first_rank,
        on_first_rank,
        together,
    )
    from engine.distributed.ranks import run_on_ranks
    from engine.doctor.report import banner
    from engine.profile.profiler import profile_step

    def work(device: torch.device, world: int) -> int:
        config = together(lambda: load(path, overrides, world_size=world))
        on_first_rank(lambda: check_outputs(json_file, plot, trace))
        if is_first_rank():
            print("\n".join(banner(config)), flush=True)
        found = profile_step(config, device, warmup, steps, trace)
        found = {"configuration": " ".join([path.name, *overrides]), **found}
        on_first_rank(
            lambda: publish(found, report, as_json=as_json, json_file=json_file, plot=plot)
        )
        return 0

    alone()
    return run_on_ranks(work)


def own_output() -> TextIO:
    """The standard output for the report alone: whatever else this process prints there goes to the
    error stream."""
    sys.stdout.flush()
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # below Python, so that compiled code and loggers follow
    return kept


def alone() -> None:
    """Make this process a world of one, unless a launcher has said what it is part of."""
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        os.environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "0",
        }  # any free port


def check_outputs(json_file: Path | None, plot: Path | None, trace: Path | None) -> None:
    """Raise ConfigError for a file that could not be written when all is measured; make the folder
    of the traces."""
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
    found: dict, report: TextIO, *, as_json: bool, json_file: Path | None, plot: Path | None
) -> None:
    """Print the report, and write the files that were asked for."""
    if json_file is not None:
        write_whole(json_file, json.dumps(found, indent=1) + "\n")
    save_plot(plot, lambda: picture(found))
    print(json.dumps(found) if as_json else text(found), file=report, flush=True)


def text(found: dict) -> str:
    """The report for a terminal."""
    return "\n".join(
        [
            f"Measured training step: {found['configuration']}",
            "",
            *_summary(found),
            "",
            *_parts(found),
            "",
            *_operators(found),
        ]
    )


def _summary(found: dict) -> list[str]:
    """What ran, whether it trained, how fast."""
    hardware, counts, training = found["hardware"], found["counts"], found["training"]
    packages, step, flops = found["environment"]["packages"], found["step_seconds"], found["flops"]
    wait, side = found["data_wait"], flops["matmul"]["side"]
    loss = " -> ".join(
        "not finite" if value is None else f"{value:.4f}"
        for value in (training["first_loss"], training["last_loss"])
    )
    peaks = ", ".join(f"{size / GIB:.2f} GiB {name}" for name, size in found["memory"].items())
    rows = {
        "hardware": f"{place(hardware)}, {hardware['type']}, CPU threads a rank: {hardware['threads']}",
        "software": f"torch {packages['torch']}, deepspeed {packages['deepspeed']}, revision "
        f"{found['environment']['git']}",
        "model": f"{counts['parameters'] / 1e6:.1f} M parameters, batch {counts['batch']}",
        "training": f"{training['applied']} of {training['steps']} steps applied, loss {loss}, "
        f"{'all terms finite' if training['finite'] else 'NOT ALL TERMS FINITE'}",
        "timed": f"{counts['timed']} steps without the profiler, after {counts['warmup']} of warm-up",
        "step time": f"{short(step['median'])} median, {short(step['min'])} to {short(step['max'])}; a step's slowest "
        "rank",
        "speed": f"{found['samples_per_second']:.3g} samples/s",
        "data wait": f"{short(wait['seconds'])} a step, {100 * wait['share']:.1f} %, until every rank has its batch",
        "peak memory": f"{peaks}; the largest rank, from its start",
        "model FLOPs": f"{flops['sample_model'] / GIGA:,.1f} GFLOPs a sample, {flops['step_model'] / TERA:,.3g} TFLOPs "
        "a step",
        "reached": f"{flops['per_second'] / TERA:.4g} TFLOP/s, {100 * flops['mfu']:.1f} % (MFU) of "
        f"{flops['matmul']['per_second'] / TERA:.4g} TFLOP/s,",
        "": f"a {hardware['type']} matrix product {side} x {side} x {side} on all ranks at once",
    }
    return [f"{name:14}{value}" for name, value in rows.items()]


def _parts(found: dict) -> list[str]:
    """One step by part, from the trace."""
    traced = found["traced_step"]
    whole, exchange = traced["seconds"], traced["communication"]
    basis = "inside the parts, waiting for other ranks included"
    if exchange["exposed"] is not None:
        basis += f"; {short(exchange['exposed'])} with no other kernel running"
    lines = [
        f"One more step with the profiler on, which makes it longer: {short(whole)}, mean over ranks",
        "",
        f"{'part':24}{'time':>10}{'share':>8}",
    ]
    lines += [
        f"{name:24}{short(seconds):>10}{100 * seconds / whole:>7.1f}%"
        for name, seconds in traced["parts"].items()
    ]
    lines += [
        "",
        f"{'communication':24}{short(exchange['seconds']):>10}{100 * exchange['share']:>7.1f}%  {basis}",
    ]
    if traced["busy_share"] is not None:
        lines.append(f"{'a kernel runs':24}{'':10}{100 * traced['busy_share']:>7.1f}%")
    return lines


def _operators(found: dict) -> list[str]:
    """The largest operators of the same step."""
    what = (
        "Kernels by device time"
        if found["hardware"]["kind"] == "cuda"
        else "Operators by their own CPU time"
    )
    return [
        f"{what}, rank 0, same step",
        "",
        f"{'calls':>8}{'time':>10}{'share':>8}  name",
        *(
            f"{row['calls']:>8}{short(row['seconds']):>10}{100 * row['share']:>7.1f}%  {row['name'][:80]}"
            for row in found["operators"][:ROWS]
        ),
    ]
