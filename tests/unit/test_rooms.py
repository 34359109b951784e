"""The drawing of the house: which room may import which, and who may import which heavy library.

A room is a folder; a file that lies flat in one of the four top folders is a room of its own.
"""

import ast
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

TOPS = ("launch", "engine", "models", "data")
# Room -> the rooms that it may import beside itself. Read downward inside each top folder: a room
# imports only rooms that stand above its own line, so there is no circle. All may import the errors
# of their top folder. docs/architecture.md shows this table.
ROOMS = {
    "data": "",
    "data/errors": "",
    "data/files": "",
    "data/hashing": "",
    "data/suggest": "",
    "data/seeded": "data/hashing",
    "data/tiles": "data/hashing data/suggest",
    "data/jobs": "data/hashing",
    "data/storage": "data/files data/hashing",
    "data/pages": "data/tiles",
    "data/osm": "data/files data/hashing data/tiles",
    "data/prepare/place": "data/tiles",
    "data/prepare/contract": "data/suggest data/tiles data/prepare/place",
    # The tiles of a scene follow from the pixels of a source, so the manifest's readers need them.
    "data/scenes": "data/hashing data/tiles data/prepare/place data/prepare/contract",
    "data/prepare/cf": "data/suggest data/prepare/place data/prepare/contract",
    "data/prepare/readers": (
        "data/suggest data/tiles data/osm data/prepare/place data/prepare/contract data/prepare/cf"
    ),
    "data/prepare/manifest": (
        "data/suggest data/tiles data/prepare/place data/prepare/contract data/scenes"
        " data/prepare/readers"
    ),
    "data/prepare": (
        "data/files data/hashing data/tiles data/jobs data/prepare/place data/prepare/contract"
        " data/prepare/manifest"
    ),
    "data/shards": "data/files data/hashing data/seeded data/tiles data/jobs data/storage",
    "data/stream": "data/hashing data/seeded data/tiles data/storage data/shards",
    "data/learning": "data/files data/tiles",
    "data/audit/measure": "data/hashing data/tiles data/shards",
    "data/audit/rules": "data/tiles data/audit/measure",
    "data/audit/findings": (
        "data/tiles data/pages data/shards data/stream data/audit/measure data/audit/rules"
    ),
    "data/audit/page": (
        "data/tiles data/pages data/shards data/stream data/audit/rules data/audit/findings"
    ),
    "data/audit": (
        "data/files data/tiles data/jobs data/storage data/pages data/shards data/stream"
        " data/audit/measure data/audit/rules data/audit/findings data/audit/page"
    ),
    "data/bench": (
        "data/tiles data/prepare/place data/prepare/contract data/prepare data/shards data/stream"
    ),
    "models": "",
    "models/errors": "",
    "models/spec": "",
    "models/packing": "",
    "models/features": "models/spec",
    "models/reducer": "",
    "models/initialise": "",
    "models/recompute": "",
    "models/layer_norm": "",
    "models/variants": "models/spec",
    "models/kernels": "",
    "models/moe": "models/spec models/packing models/reducer models/kernels",
    "models/backbone": (
        "models/spec models/packing models/initialise models/recompute models/kernels models/moe"
    ),
    "models/fusion": "models/spec models/reducer models/initialise models/recompute models/kernels",
    "models/skysense": (
        "models/spec models/packing models/features models/reducer models/recompute"
        " models/backbone models/fusion models/moe"
    ),
    "models/pretraining/losses": "models/reducer models/kernels models/fusion",
    "models/pretraining": (
        "models/spec models/features models/reducer models/recompute models/backbone models/fusion"
        " models/moe models/skysense"
    ),
    "models/pretrained": "models/spec models/features models/backbone models/skysense",
    "models/count": (
        "models/spec models/packing models/features models/recompute models/backbone"
        " models/pretraining models/pretraining/losses"
    ),
    "engine": "",
    "engine/errors": "",
    "engine/config": "",
    "engine/plot_file": "",
    "engine/distributed": "engine/config",
    "engine/checkpoint": "engine/distributed",
    "engine/resilience": "engine/config",
    "engine/pretrained": "engine/config engine/distributed engine/checkpoint",
    "engine/evaluate": "engine/config engine/distributed engine/pretrained",
    "engine/training": (
        "engine/config engine/distributed engine/checkpoint engine/resilience engine/pretrained"
        " engine/evaluate"
    ),
    "engine/planning": "engine/config engine/distributed engine/training",
    "engine/doctor": "engine/config engine/distributed engine/training engine/planning",
    "engine/cost": "engine/config engine/plot_file",
    "engine/profile": (
        "engine/config engine/plot_file engine/distributed engine/training engine/doctor"
        " engine/cost"
    ),
    "engine/bench": "engine/profile",
    "engine/bench/cases": "engine/bench",
    "engine/report": (
        "engine/config engine/checkpoint engine/pretrained engine/training engine/evaluate"
    ),
    "launch": "",
}
# What each top folder may import of the others.
ARROWS = {
    "launch": {"launch", "engine", "models", "data"},
    "engine": {"engine", "models", "data"},
    "models": {"models"},
    "data": {"data"},
}
# Library -> the files, or folders with a slash behind, that may import it.
OWNERS = {
    "deepspeed": (
        "engine/distributed/zero.py",
        "engine/distributed/fake_world.py",
        "models/moe/",
    ),
    "rasterio": ("data/",),
    "zarr": ("data/",),
    "webdataset": ("data/",),
    "pyogrio": ("data/",),
    "osmium": ("data/",),
    "fsspec": ("data/storage/",),
    "triton": ("models/kernels/",),
    "dask": ("data/jobs/",),
    "dask_jobqueue": ("data/jobs/",),
    "distributed": ("data/jobs/",),
}


def imported(source: str, file: str) -> list[tuple[str, int]]:
    """Dotted names of all modules that a source imports at any depth, with their lines."""
    package = file.split("/")[:-1]
    names = []
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # "from a.b import c" may import the module a.b.c
            names += [(f"{module}.{alias.name}", node.lineno) for alias in node.names]
        elif _imports_by_name(node):
            names += [(str(node.args[0].value), node.lineno)]
    return names


def _imports_by_name(node: ast.AST) -> bool:
    """Whether a node is ``import_module("name")`` or ``__import__("name")``."""
    if not isinstance(node, ast.Call) or not node.args:
        return False
    function = node.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    is_constant = isinstance(node.args[0], ast.Constant)
    return is_constant and name in ("import_module", "__import__")


def room_of(path: str) -> str:
    """The room of a file or module: the longest entry of ROOMS that it lies in; "" for none."""
    stem = path.removesuffix(".py").removesuffix("/__init__")
    candidates = [stem.rsplit("/", cut)[0] for cut in range(stem.count("/") + 1)]
    return next((room for room in candidates if room in ROOMS), "")


def wrong_arrows(source: str, file: str) -> list[str]:
    """What a file at ``file`` (relative to the repository) must not import, one line each."""
    top, room = file.split("/")[0], room_of(file)
    wrong = []
    for name, line in imported(source, file):
        other_top, other = name.split(".")[0], room_of(name.replace(".", "/"))
        if other_top in (*TOPS, "tests") and other_top not in ARROWS[top]:
            wrong.append(
                f"{file}:{line} imports {name}: {top} may import only {sorted(ARROWS[top])}"
            )
        elif other_top == top != "launch" and other not in (
            room,
            f"{top}/errors",
            *ROOMS[room].split(),
        ):
            allowed = ROOMS[room] or "no other room"
            wrong.append(f"{file}:{line} imports {name}: {room} may import only {allowed}")
        owners = OWNERS.get(other_top, (file,))
        if not any(
            file == owner or (owner[-1] == "/" and file.startswith(owner)) for owner in owners
        ):
            wrong.append(f"{file}:{line} imports {name}: only {', '.join(owners)} may")
    return wrong


PAGE = ROOT / "docs" / "architecture.md"
TABLE_BEGINS = "<!-- rooms: written from tests/unit/test_rooms.py -->\n"
TABLE_ENDS = "<!-- end of rooms -->\n"


def page_table() -> str:
    """ROOMS as a table of docs/architecture.md."""
    lines = ["| room | may import |", "|---|---|"]
    for room, imports in ROOMS.items():
        if "/" in room:
            named = ", ".join(f"`{other}`" for other in imports.split()) or "no other room"
            lines.append(f"| `{room}` | {named} |")
    return "\n".join(lines) + "\n"


def page_with(table: str) -> str:
    """The page with a table between its marks."""
    before, _, rest = PAGE.read_text().partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    return before + TABLE_BEGINS + table + TABLE_ENDS + after


def sources() -> list[Path]:
    """All Python files of the library and its commands."""
    return [path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))]


def test_every_arrow_points_the_right_way():
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(TOPS)
    wrong = [
        line
        for path in sources()
        for line in wrong_arrows(path.read_text(), path.relative_to(ROOT).as_posix())
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_stand_in_the_order_of_their_floors():
    """A room may import only rooms of earlier lines of the table: so the drawing has no circle."""
    rooms = list(ROOMS)
    for room, below in ROOMS.items():
        upward = [other for other in below.split() if rooms.index(other) >= rooms.index(room)]
        assert not upward, f"{room} may import {upward}, which stand below it in the table"


def test_the_table_names_the_rooms_that_there_are_and_no_others():
    files = [path.relative_to(ROOT) for path in sources() if path.parent != ROOT / "launch"]
    folders = {path.parent.as_posix() for path in files}
    flat = {
        path.with_suffix("").as_posix()
        for path in files
        if len(path.parts) == 2 and path.name != "__init__.py"
    }
    assert set(ROOMS) == folders | flat | {"launch"}


def test_the_page_shows_this_table():
    expected = page_with(page_table())
    assert PAGE.read_text() == expected, "run PYTHONPATH=. python docs/figures/draw_rooms.py"


def test_each_room_with_unit_tests_is_mirrored():
    """Unit tests lie in a folder of the same name as what they test."""
    unit = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(unit).as_posix() for path in unit.rglob("test_*.py")}
    strange = sorted(folders - set(ROOMS) - {"."})
    assert not strange, f"tests/unit holds folders that mirror no room: {strange}"


def test_no_script_shadows_a_standard_module():
    names = sys.stdlib_module_names
    shadows = [path.name for path in (ROOT / "launch").iterdir() if path.stem in names]
    assert not shadows, f"launch/ comes first on the import path: rename {shadows}"


@pytest.mark.parametrize(
    "file, source",
    [
        ("models/skysense.py", "from engine.config.load import load"),
        ("models/skysense.py", "import data.stream.sample"),
        ("models/pretraining/losses/a.py", "from ....data.stream import sample"),
        ("data/tiles/a.py", "def f():\n    from models.spec import ModelSpec"),
        ("data/jobs/a.py", "import importlib\nimportlib.import_module('engine.training.step')"),
        ("engine/cost/a.py", "from launch.cli import run"),
        ("engine/cost/a.py", "from tests.unit import test_config"),
        ("engine/config/load.py", "import deepspeed"),
        ("engine/training/a.py", "from deepspeed.runtime import engine"),
        ("models/backbone/a.py", "try:\n    import deepspeed.moe\nexcept ImportError:\n    pass"),
        ("engine/cost/a.py", "import zarr, json"),
        ("launch/a.py", "import rasterio"),
        ("models/backbone/a.py", "from webdataset import WebDataset"),
        ("models/fusion/a.py", "import triton.language as tl"),
        # from room to room
        ("data/tiles/a.py", "from data.shards import dataset"),
        ("data/prepare/readers/a.py", "from data.prepare.run import prepare"),
        ("models/moe/a.py", "from models.backbone.windows import Windows"),
        ("models/fusion/a.py", "from ..pretraining.losses import dino"),
        ("engine/distributed/a.py", "from engine.checkpoint.files import MANIFEST"),
        ("engine/training/a.py", "from engine.doctor.report import banner"),
    ],
)
def test_wrong_arrows_are_found(file, source):
    assert len(wrong_arrows(source, file)) == 1


@pytest.mark.parametrize(
    "file, source",
    [
        (
            "launch/a.py",
            "from engine.config.load import load\nfrom data.shards.writer import write_shards",
        ),
        ("engine/distributed/zero.py", "import deepspeed\nfrom models import reducer"),
        ("models/moe/layer.py", "from deepspeed.moe.layer import MoE\nfrom .. import spec"),
        ("data/prepare/readers/a.py", "import rasterio\nfrom ..contract.source import Source"),
        ("models/kernels/a.py", "import triton\nfrom .dispatch import kernel_path"),
        # names that only begin like ours
        ("engine/cost/a.py", "import dataclasses, datasets, modelscope"),
    ],
)
def test_right_arrows_pass(file, source):
    assert not wrong_arrows(source, file)
