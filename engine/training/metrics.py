"""What a run says while it runs: one JSON object a step, TensorBoard files and a progress line.

Only rank 0 says anything.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data.errors import InputError
from data.files import write_whole
from engine.errors import ConfigError
from engine.training.console import say

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE = "metrics.jsonl"
_SMOOTHING = 0.9  # of the seconds a step, from which the time left follows


def read(run_dir: str | os.PathLike) -> list[dict]:
    """All complete records of a run, by step. A last line that a crash cut short is left out.

    Raises:
        ConfigError: A line other than the last is not JSON.
    """
    path = Path(run_dir) / FILE
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
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
    """Writer of one run's records."""

    def __init__(
        self,
        run_dir: str | os.PathLike,
        *,
        steps: int,
        start: int = 0,
        rank: int = 0,
        every: int = 1,
    ):
        """Open the files, on rank 0 alone.

        Args:
            run_dir: The run folder. It gets ``metrics.jsonl`` and ``tensorboard/``.
            steps: Steps of the whole run, for the time left.
            start: First step of this process. Records of this and later steps are from before a
                restart and are cut off.
            rank: Ranks other than 0 write nothing.
            every: Steps between progress lines. Every step is recorded.
        """
        self.run_dir = Path(run_dir)
        self.steps = steps
        self.every = every
        self.seconds_a_step: float | None = None  # smoothed
        self.file: IO[str] | None = None
        self.board: SummaryWriter | None = None
        if rank == 0:
            self._open(self.run_dir, start)

    def _open(self, run_dir: Path, start: int) -> None:
        # Imported here because it takes seconds: not on every rank.
        from torch.utils.tensorboard import SummaryWriter

        run_dir.mkdir(parents=True, exist_ok=True)
        _cut(run_dir, start)
        self.file = open(run_dir / FILE, "a", encoding="utf-8")  # noqa: SIM115 (close() closes it)
        self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start)

    def log(
        self,
        step: int,
        values: dict[str, Any],
        *,
        samples: int,
        seconds: float,
        waited: float,
        loss_note: str = "",
    ) -> None:
        """Record one step.

        Args:
            step: Counted from 0.
            values: Names to numbers, or to lists and dictionaries of numbers (JSON only).
            samples: Global batch.
            seconds: Of the whole step.
            waited: Of these, for data.
            loss_note: What the progress line says beside ``values["loss"]``.

        Raises:
            InputError: The files cannot be written; raised on rank 0 alone.
        """
        if self.seconds_a_step is None:
            self.seconds_a_step = seconds
        else:
            self.seconds_a_step = _SMOOTHING * self.seconds_a_step + (1 - _SMOOTHING) * seconds
        if self.file is None or self.board is None:
            return
        record = {
            "step": step,
            "time": round(time.time(), 3),
            "seconds": seconds,
            "samples_per_second": samples / seconds,
            "data_wait": waited / seconds,
            **values,
        }
        with self._writing():
            self.file.write(json.dumps(_plain(record), allow_nan=False) + "\n")
            self.file.flush()
            for name, value in record.items():
                if name not in ("step", "time") and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, step)
        if step % self.every == 0 or step == self.steps - 1:
            say(_line(record, self.steps, self.seconds_a_step, loss_note))

    def close(self) -> None:
        """End both files.

        Raises:
            InputError: As ``log``.
        """
        with self._writing():
            if self.file is not None:
                self.file.close()
            if self.board is not None:
                self.board.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Name the folder when the system refuses to write there."""
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(
                f"{self.run_dir}: the log cannot be written ({reason}); make room, and continue "
                "with --resume"
            ) from error


def _line(record: dict[str, Any], steps: int, seconds_a_step: float, loss_note: str) -> str:
    """The progress line of a record."""
    parts = [f"step {record['step'] + 1}/{steps}"]
    if "loss" in record:
        loss = f"loss {record['loss']:.4f}"
        if loss_note:
            loss += f" ({loss_note})"
        parts.append(loss)
    parts.append(f"{record['samples_per_second']:.2f} samples/s")
    parts.append(f"data wait {100 * record['data_wait']:.0f} %")
    parts.append(f"left {_clock((steps - 1 - record['step']) * seconds_a_step)}")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _cut(run_dir: Path, start: int) -> None:
    """Remove the records of step ``start`` and later, and a torn last line."""
    path = run_dir / FILE
    if path.exists():
        lines = [json.dumps(record) + "\n" for record in read(run_dir) if record["step"] < start]
        write_whole(path, "".join(lines))


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as null."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
