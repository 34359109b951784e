"""A wheel built from the project works outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from launch import __version__
from tests.environment import environment
from tests.paths import ROOT

PACKAGES = ("data", "ds_configs", "engine", "launch", "models")
FILES = ("LICENSE", "README.md", "pyproject.toml", "setup.cfg")
PIP = (sys.executable, "-m", "pip")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index")
    done = subprocess.run(
        [*PIP, "wheel", source, *options, "--wheel-dir", folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that the wheel is installed in; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    done = subprocess.run(
        [*PIP, "install", "--no-deps", "--no-index", "--target", folder, wheel],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def skysense(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run the installed command in ``folder``, without the checkout on the import path."""
    command = [sys.executable, str(installed / "bin" / "skysense"), *words]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_wheel_holds_the_project_without_its_samples(wheel):
    assert __version__ in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "launch/__main__.py",
        "engine/report/templates/summary.html",
        "data/pages/templates/page.html",
        "ds_configs/paper_128gpu.json",
        "ds_configs/ablations/table_15_queries_4.json",
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("tests/", "data/samples/"))]
    for package in ("data", "engine", "launch", "models"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            assert name.startswith("data/samples/") or name in names


def test_the_command_works_outside_the_checkout(installed, tmp_path):
    done = skysense(installed, tmp_path, "--version")
    assert done.stdout == f"skysense {__version__}\n"
    for words in (("--help",), ("prepare", "--help"), ("doctor",), ("params", "--spec", "small")):
        done = skysense(installed, tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    done = skysense(installed, tmp_path, "flops", "--preset", "paper", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["paper"]
    assert os.listdir(tmp_path) == []


def test_the_packages_are_those_of_the_wheel(installed, tmp_path):
    program = "import data, engine, launch, models; print(engine.__file__, launch.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    for path in done.stdout.split():
        assert Path(path).is_relative_to(installed)
