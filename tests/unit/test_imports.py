"""The arrows between the rooms: launch -> engine -> {models, data}, and who may import which heavy library."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("engine", "models", "data", "launch")
ARROWS = {"launch": {"launch", "engine", "models", "data"}, "engine": {"engine", "models", "data"},
          "models": {"models"}, "data": {"data"}}
# Library -> the files, or folders with a slash behind, that may import it.
OWNERS = {
    "deepspeed": ("engine/zero.py", "models/moe.py"),
    "rasterio": ("data/",), "zarr": ("data/",), "webdataset": ("data/",), "pyogrio": ("data/",), "osmium": ("data/",),
    "fsspec": ("data/storage/",),
    "triton": ("models/kernels/",),
}


def imported(source: str, file: str) -> list[tuple[str, int]]:
    """Dotted names of all modules that a source imports at any depth, with their lines; relative ones resolved."""
    package = file.split("/")[:-1]
    names = []
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names.append((module, node.lineno))
            if not node.module:  # from . import x
                names += [(f"{module}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                names.append((str(node.args[0].value), node.lineno))
    return names


def _called(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def wrong_arrows(source: str, file: str) -> list[str]:
    """What a file at ``file`` (relative to the repository) must not import, one line each."""
    room = file.split("/")[0]
    wrong = []
    for name, line in imported(source, file):
        top = name.split(".")[0]
        if top in ROOMS + ("tests",) and top not in ARROWS[room]:
            wrong.append(f"{file}:{line} imports {name}: {room} may import only {sorted(ARROWS[room])}")
        if top in OWNERS and not any(file == owner or (owner[-1] == "/" and file.startswith(owner))
                                     for owner in OWNERS[top]):
            wrong.append(f"{file}:{line} imports {name}: only {', '.join(OWNERS[top])} may")
    return wrong


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_every_arrow_points_the_right_way():
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(ROOMS)
    wrong = [line for path in sources()
             for line in wrong_arrows(path.read_text(), path.relative_to(ROOT).as_posix())]
    assert not wrong, "\n".join(wrong)


def test_no_script_shadows_a_standard_module():
    shadows = [path.name for path in (ROOT / "launch").iterdir() if path.stem in sys.stdlib_module_names]
    assert not shadows, f"launch/ comes first on the import path: rename {shadows}"


@pytest.mark.parametrize("file, source", [
    ("models/a.py", "from engine.config import load"),
    ("models/a.py", "import data.sample"),
    ("models/losses/a.py", "from ...data import sample"),
    ("data/a.py", "def f():\n    from models.spec import ModelSpec"),
    ("data/a.py", "import importlib\nimportlib.import_module('engine.step')"),
    ("engine/a.py", "from launch.cli import run"),
    ("engine/a.py", "from tests.unit import test_config"),
    ("engine/config.py", "import deepspeed"),
    ("engine/a.py", "from deepspeed.runtime import engine"),
    ("models/a.py", "try:\n    import deepspeed.moe\nexcept ImportError:\n    pass"),
    ("engine/a.py", "import zarr, json"),
    ("launch/a.py", "import rasterio"),
    ("models/a.py", "from webdataset import WebDataset"),
    ("models/kernels_old.py", "import triton.language as tl"),
])
def test_wrong_arrows_are_found(file, source):
    assert len(wrong_arrows(source, file)) == 1


@pytest.mark.parametrize("file, source", [
    ("launch/a.py", "from engine.config import load\nfrom data.shards.writer import write_shards\nimport models.spec"),
    ("engine/zero.py", "import deepspeed\nfrom models import reducer"),
    ("models/moe.py", "from deepspeed.moe.layer import MoE\nfrom . import spec"),
    ("data/prepare/a.py", "import rasterio\nfrom ..tile import Tile"),
    ("models/kernels/a.py", "import triton\nfrom ..spec import ModelSpec"),
    ("engine/a.py", "import dataclasses, datasets, modelscope"),  # names that only begin like ours
])
def test_right_arrows_pass(file, source):
    assert not wrong_arrows(source, file)
