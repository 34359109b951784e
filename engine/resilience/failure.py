"""What a failed run leaves: which error ended it, and each rank's traceback and stacks.

<run>/failures/<attempt, 8 digits>/
    verdict.json         the one line that the screen shows last; rank and host that it is about
    rank-00003.txt       traceback of an error of a rank
    stacks-00003.txt     where every thread of a rank stood when the run ended
    exchanges-00003.json its last exchanges with others (``exchanges``)
"""

import faulthandler
import json
import os
import socket
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from data.files import write_whole
from engine.errors import USER_ERRORS, ReplicaError
from engine.resilience.progress import Progress

FAILURES = "failures"  # folder in the run folder
VERDICT = "verdict.json"
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
_LONGEST = 400  # characters of an error's own text in the one line
# What libraries say on a rank whose partner has gone.
_FOLLOWS = ("Connection closed by peer", "Connection reset by peer", "gloo/transport", "NCCL")


@dataclass(frozen=True)
class Verdict:
    """Why a run has failed.

    Attributes:
        rank: that failed first.
        host: of this rank.
        kind: "error" of the program, "lost" process, "stuck", or "faulty" memory or device.
        line: all of it, for the screen.
        exit_code: with which all ranks leave.
    """

    rank: int
    host: str
    kind: str
    line: str
    exit_code: int = EXIT_FAILED


def of_error(error: BaseException, progress: Progress, rank: int) -> Verdict:
    """The verdict that an error of this process is the cause."""
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, ReplicaError):
        return _of_unequal(error, text, progress)
    host = socket.gethostname()
    where = f"rank {rank} on {host}, after {progress.step} steps, {progress.phase}"
    if isinstance(error, USER_ERRORS):
        return Verdict(rank, host, "error", f"{where}: {text}", EXIT_USER_ERROR)
    return Verdict(rank, host, "error", f"{where}: {type(error).__name__}: {text}")


def _of_unequal(error: ReplicaError, text: str, progress: Progress) -> Verdict:
    """The verdict on the rank that has something else than the others."""
    kind = "error"
    if error.is_certain:
        kind = "faulty"
    where = f"rank {error.rank} on {error.host}, after {progress.step} steps"
    return Verdict(error.rank, error.host, kind, f"{where}: {text}")


def follows(error: BaseException) -> bool:
    """Whether an error only says that another rank has gone."""
    return any(words in str(error) for words in _FOLLOWS)


def claim(folder: Path, verdict: Verdict) -> bool:
    """Make this the run's verdict; False if there is one already.

    Of several ranks that try it at once one succeeds: a file gets a second name only once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"verdict-{verdict.rank:05d}-{os.getpid()}.json"
    write_whole(own, json.dumps(asdict(verdict)))
    try:
        os.link(own, folder / VERDICT)
    except FileExistsError:
        return False
    finally:
        own.unlink()
    return True


def read_verdict(folder: Path) -> Verdict | None:
    """The run's verdict; None if it has none."""
    file = folder / VERDICT
    if not file.exists():
        return None
    return Verdict(**json.loads(file.read_text()))


def error_file(folder: Path, rank: int) -> Path:
    """The traceback of a rank."""
    return folder / f"rank-{rank:05d}.txt"


def write_error(folder: Path, error: BaseException, rank: int) -> None:
    """Write the traceback of a rank."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(error_file(folder, rank), "".join(traceback.format_exception(error)))


def stacks_file(folder: Path, rank: int) -> Path:
    """The stacks of a rank's threads."""
    return folder / f"stacks-{rank:05d}.txt"


def write_stacks(folder: Path, rank: int) -> None:
    """Write where every thread of this process stands, this one too."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(stacks_file(folder, rank), "w") as file:
        faulthandler.dump_traceback(file)
