"""What a worker process runs with: its environment, package versions and source code."""

import os
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from data.hashing import new_hash

# One process a core, so one thread a process: otherwise each starts a thread for every core.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "GDAL_NUM_THREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
    "GDAL_CACHEMAX": "64",  # MB; GDAL's default is 5 % of the memory in every process
}
# Packages that decide the bytes of an archive and of shards, or carry the tasks.
PACKAGES = (
    "cftime",
    "cloudpickle",
    "dask",
    "distributed",
    "h5py",
    "numcodecs",
    "numpy",
    "pillow",
    "pyproj",
    "rasterio",
    "shapely",
    "torchvision",
    "zarr",
)
CODE = "the code of data/"
ROOT = Path(__file__).parents[2]


def worker_environment() -> dict[str, str]:
    """What is set in the environment of a worker: ``ENVIRONMENT``, and where this project lies."""
    folders = [str(ROOT)]
    if os.environ.get("PYTHONPATH"):
        folders.append(os.environ["PYTHONPATH"])
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(folders)}


@lru_cache(maxsize=1)
def surroundings() -> dict[str, str]:
    """The versions of Python and of ``PACKAGES``, and a hash of the code, of this process."""
    items = {"Python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            items[name] = version(name)
        except PackageNotFoundError:
            items[name] = "absent"
    items[CODE] = _code_hash(ROOT / "data")
    return items


def difference(expected: dict[str, str], present: dict[str, str]) -> str:
    """In words, how ``present`` differs from ``expected``; empty if it does not."""
    words = []
    for name, value in expected.items():
        other = present.get(name, "absent")
        if other != value:
            words.append(f"{name} {other} in place of {value}")
    return ", ".join(words)


def _code_hash(folder: Path) -> str:
    """A hash of all Python files below a folder, with their paths."""
    digest = new_hash(b"")
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
