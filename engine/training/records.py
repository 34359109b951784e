"""What a run's files say about a step: the metrics, the quarantine and the faults of reading."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.stream.sample import Batch
from engine.training import context
from engine.training.loss_terms import TOTAL, TOTAL_KEY, LossTerm, dropped_key, statistic_key
from engine.training.step import StepReport

FAULT = "fault/"  # how the names of faults begin in ``Batch.reads``


def metrics_record(report: StepReport) -> dict:
    """A step's object in the metrics file."""
    now = report.schedule
    record: dict[str, Any] = {
        TOTAL_KEY: report.loss,
        "applied": report.applied,
        "gradient_norm": report.gradient_norm,
        "lr": now.lr,
        "weight_decay": now.weight_decay,
        "momentum": now.momentum,
        "teacher_temperature": now.teacher_temperature,
    }
    for name, value in report.terms.items():
        if name != TOTAL:
            record[LossTerm(name).key] = value
    for name, value in report.statistics.items():
        record[statistic_key(name)] = value
    for kind, share in report.dropped.items():
        record[dropped_key(kind)] = share
    if report.context is not None:
        for name, value in asdict(report.context).items():
            record[context.PREFIX + name] = value
    if report.expert_load is not None:
        record["expert_load"] = report.expert_load.tolist()
    return record


def loss_note(report: StepReport) -> str:
    """What the progress line says beside the total loss.

    The total jumps when a batch has a modality that the one before lacked. The number of terms
    shows it, and their weighted mean does not jump.
    """
    terms = len(report.weights)
    measured = len(report.measured_terms())
    share = f"{terms} terms"
    if measured < terms:
        share = f"{measured} of {terms} terms"
    return f"{share}, mean {report.mean_loss():.4f}"


def replaced(batch: Batch) -> list[str]:
    """A line for each sample of this rank that another one stands for."""
    lines = []
    for record in batch.quarantined:
        lines.append(
            f"warning: step {record['step'] + 1}: sample {record['key']} is replaced by "
            f"{record['substitute']}: {record['reason']}"
        )
    return lines


def write_trouble(run_dir: Path, rank: int, batch: Batch, report: StepReport) -> None:
    """Write what went wrong in a step into this rank's files.

    Replaced samples and the samples of a skipped step go to its quarantine file. Faults of reading
    that were overcome go, counted by kind, to its faults file.
    """
    faults = {}
    for name, count in batch.reads.items():
        if name.startswith(FAULT):
            faults[name.removeprefix(FAULT)] = count
    if faults:
        _append(run_dir / f"faults-{rank:05d}.jsonl", [{"step": batch.step, **faults}])
    records = list(batch.quarantined)
    for key in report.skipped_keys:
        records.append(
            {
                "key": key,
                "reason": "the step was skipped: not finite",
                "step": batch.step,
                "substitute": None,
            }
        )
    if records:
        _append(run_dir / f"quarantine-{rank:05d}.jsonl", records)


def _append(path: Path, records: list[dict]) -> None:
    """Add records to a file of JSON lines."""
    with open(path, "a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
