"""A disk without room, or without places for files: the run folder is a small one in memory."""

import os
import random
from pathlib import Path

from tests.e2e.faults.chain import Chain
from tests.e2e.faults.disk import FILES

_PIECE = 2**16
_CAUSE = "o space left on device"


def full(chain: Chain, rng: random.Random) -> None:
    """There is less room than a checkpoint takes."""
    run = chain.go(rng)
    run.wait_for(lambda: len(chain.published) >= 3)
    ballast = chain.run_dir / "ballast"
    _fill(ballast)
    os.truncate(ballast, max(0, ballast.stat().st_size - rng.choice([0, rng.randrange(2**23)])))
    run.wait()
    ballast.unlink()
    chain.ended(run, _CAUSE)


def no_inodes(chain: Chain, rng: random.Random) -> None:
    """There is no place for another file, or for a few."""
    run = chain.go(rng)
    ballast = chain.run_dir / "ballast"
    ballast.mkdir()
    files = _fill_places(ballast)
    for file in rng.sample(files, rng.randrange(4)):
        file.unlink()
    run.wait()
    for file in ballast.iterdir():
        file.unlink()
    ballast.rmdir()
    chain.ended(run, _CAUSE)


def _fill(file: Path) -> None:
    """Write until there is no room."""
    with open(file, "wb", buffering=0) as stream:
        try:
            while stream.write(bytes(_PIECE)):
                pass
        except OSError:
            return


def _fill_places(folder: Path) -> list[Path]:
    """Make empty files until there is no place for one."""
    files: list[Path] = []
    while len(files) < FILES:
        file = folder / str(len(files))
        try:
            file.touch()
        except OSError:
            return files
        files.append(file)
    raise AssertionError(f"{folder}: expected a disk for at most {FILES} files")


KINDS = {
    "disk full": full,
    "no inodes": no_inodes,
}
