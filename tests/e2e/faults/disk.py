"""A small disk, in memory."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 160 * 2**20  # bytes: three checkpoints, the one being written, and little more
FILES = 2000


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small disk at a folder, which takes the rights of root."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={SIZE},nr_inodes={FILES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
