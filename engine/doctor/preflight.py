"""Look at every node of a run before it begins: on each rank, and then from one place."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from engine.distributed import zero
from engine.doctor.exchange import parts, speeds
from engine.doctor.node import DONE, JOINED, RankReport, look
from engine.doctor.nodes import Judgement, judge

BAD_NODES = "bad_nodes"  # file with their names, commas between
EXIT_LATE = 1
_SIZES = {"cpu": 2**22, "cuda": 2**27}  # bytes that each rank exchanges


def preflight(config: Path, overrides: list[str], folder: Path, *, patience: float) -> None:
    """Look around on this rank's node, exchange data with the others, and write what was found.

    The process ends with EXIT_LATE after ``patience`` seconds, for a rank that is missing would
    keep the others waiting. Its report then says how far it came.

    Args:
        config: Configuration file of the run.
        overrides: ``place=value`` of it.
        folder: For the reports; all nodes see it.
        patience: Seconds.
    """
    timer = threading.Timer(patience, os._exit, (EXIT_LATE,))
    timer.daemon = True
    timer.start()
    report = look(config, overrides)
    report.write(folder)
    try:
        device = zero.init_distributed()
    except Exception as error:  # whatever it is, this rank stays alone
        report.not_joined = f"{type(error).__name__}: {error}"
        report.write(folder)
        raise
    try:
        _exchange(report, folder, device)
    finally:
        zero.shutdown()
    timer.cancel()


def _exchange(report: RankReport, folder: Path, device: torch.device) -> None:
    """The part of ``preflight`` that needs the others."""
    hosts: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(hosts, report.host)
    report.phase = JOINED
    report.write(folder)
    for title, groups in parts(hosts).items():
        for kind, speed in speeds(groups, size=_SIZES[device.type], device=device):
            report.figures[f"{kind} {title}"] = speed
        report.phase = title
        report.write(folder)
        dist.barrier()
    report.clock = time.time()
    report.phase = DONE
    report.write(folder)


def judge_folder(folder: Path, nodes: Sequence[str], ranks: int) -> Judgement:
    """Judge the reports in a folder, and leave the names of bad nodes there.

    Args:
        folder: Of the reports.
        nodes: Short names of all nodes of the job.
        ranks: Number of ranks of the job.
    """
    judgement = judge(RankReport.read_all(folder), nodes, ranks)
    if judgement.bad:
        (folder / BAD_NODES).write_text(",".join(judgement.bad) + "\n")
    return judgement
