"""Saving a run exactly. A checkpoint exists when its manifest does, and the manifest comes last.

checkpoints/step-00000100/
    master/  exp_avg/  exp_avg_sq/  ema/
        rank-00000.safetensors   a rank's float32 shards of the student's weights, of Adam's moments
                                 and of the teacher; the header says which weights lie where
    buffers.safetensors          of student and teacher
    <name>.safetensors           tensors that the caller added
    state.json                   step, ranks, ep_size, and the JSON values that the caller added
    manifest.json                size and CRC32C of every other file, versions
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoint.files import checkpoint_folder
from engine.checkpoint.host_copy import HostCopy
from engine.checkpoint.publish import begin, hidden_folder, publish, remove
from engine.checkpoint.rotation import prune
from engine.checkpoint.state import Stamps, State, run_state, write_state
from engine.distributed import zero
from engine.distributed.collectives import collect, on_first_rank, together
from engine.distributed.pieces import FAMILIES
from engine.distributed.teacher import EmaTeacher
from engine.errors import RankError


@dataclass(frozen=True)
class _Writing:
    """A checkpoint whose files are being written."""

    step: int
    folder: Path  # its place
    stamps: Future[Stamps]  # of this rank's files


class Saver:
    """Saves a run while it trains on: the training waits for one copy to host memory.

    A thread of each rank writes the copy into a hidden folder. When all ranks have written, between
    two steps, the folder gets its manifest and then its name: a run killed at any moment leaves the
    earlier checkpoints as they were. There are never two at once. Every rank must make the same
    calls.

    All methods raise RankError, on all ranks, if a rank could not write. Nothing of that checkpoint
    is left then, and none is deleted.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        engine: zero.DeepSpeedEngine,
        teacher: EmaTeacher,
        keep: int,
        keep_every: int = 0,
        check: Callable[[], None] | None = None,
    ):
        """Prepare to save; nothing is written.

        Args:
            run_dir: Run folder.
            engine: The student's engine.
            teacher: The teacher.
            keep: Number of newest checkpoints that stay.
            keep_every: Steps; the first checkpoint at or after each multiple stays for ever. 0:
                none does.
            check: Called on all ranks before a checkpoint is begun and before it is published;
                raises RankError on all of them if it must not be.
        """
        self.root = Path(run_dir) / "checkpoints"
        self.engine = engine
        self.teacher = teacher
        self.keep = keep
        self.keep_every = keep_every
        self.check = check or (lambda: None)
        self._host = HostCopy()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        shards = zero.partitions(engine)  # all families have their sizes
        like = State(dict.fromkeys(FAMILIES, shards), layout=[], tensors={}, values={})
        self._ready = self._thread.submit(self._host.prepare, like)
        self._writing: _Writing | None = None

    def start(self, step: int, extra: dict[str, Any]) -> Path:
        """Copy the state after ``step`` steps, and begin to write it.

        A save in progress is finished first.

        Args:
            step: Steps made so far.
            extra: JSON values or dictionaries of tensors by name, equal on all ranks.

        Returns:
            Where the checkpoint will lie.
        """
        self.finish()
        self.check()
        folder = checkpoint_folder(self.root, step)
        with _nothing_left(folder):
            on_first_rank(lambda: begin(folder))
            state = run_state(step, self.engine, self.teacher, extra)
            together(self._ready.result)
            copy = together(lambda: self._host.take(state))
        stamps = self._thread.submit(write_state, copy, hidden_folder(folder), zero.ranks().rank)
        self._writing = _Writing(step, folder, stamps)
        return folder

    def poll(self) -> None:
        """Publish the checkpoint that is being written if all ranks have written it.

        To be called after every step.
        """
        writing = self._writing
        if writing is not None and all(collect(writing.stamps.done)):
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is published, if there is one."""
        writing = self._writing
        if writing is None:
            return
        self._writing = None
        with _nothing_left(writing.folder):
            stamps = collect(writing.stamps.result)
        self.check()
        with _nothing_left(writing.folder):
            on_first_rank(lambda: publish(writing.folder, stamps))
        on_first_rank(lambda: self._tidy(writing))

    def _tidy(self, writing: _Writing) -> None:
        """Say what was published, and delete what it replaces."""
        print(f"checkpoint of step {writing.step}: {writing.folder}", flush=True)
        prune(writing.folder, keep=self.keep, keep_every=self.keep_every)


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Delete the hidden folder of a checkpoint if some rank cannot write it."""
    try:
        yield
    except RankError:
        on_first_rank(lambda: remove(hidden_folder(folder)))
        raise
