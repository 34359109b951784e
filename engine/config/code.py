"""Which code a process runs: the project's own files, and the packages beneath them."""

import platform
from importlib import metadata
from pathlib import Path

from data.hashing import content_hash

_PROJECT = Path(__file__).parents[2]
_FOLDERS = ("data", "engine", "launch", "models")
_DIGITS = 12  # of a file's hash
PACKAGES = (
    "torch",
    "torchvision",
    "deepspeed",
    "timm",
    "open_clip_torch",
    "webdataset",
    "zarr",
    "rasterio",
    "numpy",
    "triton",
    "tutel",
)


def source_hashes() -> dict[str, str]:
    """Relative name of each Python file of the project -> hash of its content.

    Unlike a git revision they are there in an installed package too, and see a changed file.
    """
    hashes = {}
    for folder in _FOLDERS:
        for file in sorted((_PROJECT / folder).rglob("*.py")):
            name = file.relative_to(_PROJECT).as_posix()
            hashes[name] = content_hash(file.read_bytes())[:_DIGITS]
    return hashes


def versions() -> dict[str, str | None]:
    """Name -> version of Python and of the packages; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
