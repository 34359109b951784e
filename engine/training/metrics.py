"""What a run says while it runs: one JSON object a step, TensorBoard files and a progress line;
rank 0 only."""

import json
import math
import os
import time
from pathlib import Path

from data.files import write_whole
from engine.errors import ConfigError

FILE = "metrics.jsonl"


def read(run_dir: str | os.PathLike) -> list[dict]:
    """All whole records of a run, by step. A last line that a crash cut short is left out.

    Raises:
        ConfigError: a line other than the last is not JSON.
    """
    path = Path(run_dir) / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ConfigError(
                    f"{path}: line {number} is not JSON; restore the file or remove the line"
                ) from error
    return records


class Metrics:
    """Writer of one run's records.

    Args: run_dir: the run folder; gets ``metrics.jsonl`` and ``tensorboard/``. steps: steps of the
        whole run, for the time left. start: first step of this process; records of this and later
        steps are from before a restart and are cut off. rank: other ranks than 0 write nothing.
        every: steps between progress lines; every step is recorded.
    """

    def __init__(
        self, run_dir: str | os.PathLike, steps: int, start: int = 0, rank: int = 0, every: int = 1
    ):
        self.steps, self.every, self.active = steps, every, rank == 0
        self.recent = None  # seconds a step, smoothed
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter  # seconds to import: not on every rank

        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        _cut(run_dir, start)
        self.file = open(run_dir / FILE, "a", encoding="utf-8")
        self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start)

    def log(self, step: int, values: dict, samples: int, seconds: float, waited: float) -> None:
        """Records one step.

        Args: step: counted from 0. values: names to numbers, or to lists and dictionaries of
            numbers (JSON only). ``loss`` is shown. samples: global batch. seconds: of the whole
            step. waited: of these, for data.
        """
        self.recent = seconds if self.recent is None else 0.9 * self.recent + 0.1 * seconds
        if not self.active:
            return
        record = {
            "step": step,
            "time": round(time.time(), 3),
            "seconds": seconds,
            "samples_per_second": samples / seconds,
            "data_wait": waited / seconds,
            **values,
        }
        self.file.write(json.dumps(_plain(record), allow_nan=False) + "\n")
        self.file.flush()
        for name, value in record.items():
            if name not in ("step", "time") and isinstance(value, (int, float)):
                self.board.add_scalar(name, value, step)
        if step % self.every == 0 or step == self.steps - 1:
            print(self.line(record), flush=True)

    def line(self, record: dict) -> str:
        """The progress line of a record."""
        left = (self.steps - 1 - record["step"]) * self.recent
        hours, minutes, seconds = int(left // 3600), int(left % 3600 // 60), int(left % 60)
        loss = f"loss {record['loss']:.4f}  " if "loss" in record else ""
        return (
            f"step {record['step'] + 1}/{self.steps}  {loss}{record['samples_per_second']:.2f} samples/s  "
            f"data wait {100 * record['data_wait']:.0f} %  left {hours}:{minutes:02d}:{seconds:02d}"
        )

    def close(self) -> None:
        """Ends both files."""
        if self.active:
            self.file.close()
            self.board.close()


def _cut(run_dir: Path, start: int) -> None:
    """Rewrites the records without those of step ``start`` and later, and without a torn last line."""
    path = run_dir / FILE
    if path.exists():
        kept = [record for record in read(run_dir) if record["step"] < start]
        write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))


def _plain(value):
    """JSON has no NaN and no infinity: they are written as null."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
