"""What a run that has diverged went back over, written down before it goes back.

run folder/
    rollbacks.jsonl    a line for each rollback

Each checkpoint says how many rollbacks were made before it. So a run that was killed behind the
line and before its next checkpoint goes back to the same place, and counts on.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data.files import force_folder, write_whole
from engine.errors import ConfigError

FILE = "rollbacks.jsonl"


@dataclass(frozen=True)
class Rollback:
    """One return to an earlier checkpoint.

    Attributes:
        number: of the rollback among those of the run, from 1.
        step: steps made when the run had diverged.
        reason: by which the guard knew it.
        checkpoint: gone back to; relative to the run folder if it lies there.
        first_sample: place of the first skipped sample in the order of samples.
        next_sample: place behind the last one, where the run goes on.
        attempt: number of the start that went back.
    """

    number: int
    step: int
    reason: str
    checkpoint: str
    first_sample: int
    next_sample: int
    attempt: int

    def folder(self, run_dir: Path) -> Path:
        """The checkpoint's folder."""
        return run_dir / self.checkpoint


def read(run_dir: Path) -> list[Rollback]:
    """The rollbacks of a run, oldest first.

    Raises:
        ConfigError: The file holds something else.
    """
    file = run_dir / FILE
    if not file.exists():
        return []
    rollbacks = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            rollbacks.append(Rollback(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{file}: line {number}: expected a rollback of this program, found something "
                "else; restore the file, or choose a checkpoint with --resume CHECKPOINT and "
                "remove the file"
            ) from error
    return rollbacks


def write(run_dir: Path, rollbacks: Sequence[Rollback]) -> None:
    """Make these the rollbacks of a run; they are on the disk when it returns."""
    lines = [json.dumps(asdict(rollback)) + "\n" for rollback in rollbacks]
    write_whole(run_dir / FILE, "".join(lines), durable=True)
    force_folder(run_dir)
