"""Which packages and platforms are collected for a machine without a network."""

import subprocess
import sys

import pytest

from engine.errors import ConfigError
from launch.wheels import PROJECT, build, older, requirements

FLAWED = "from setuptools import setup; raise SystemExit('no compiler')"


def test_all_of_setup_cfg_and_the_extras_asked_for():
    found = requirements(PROJECT / "setup.cfg", ["s3"])
    assert "torch==2.11.0" in found
    assert [line for line in found if line.startswith("s3fs==")]
    assert not [line for line in found if line.startswith("pytest")]
    with pytest.raises(ConfigError, match="--extras: expected some of s3, slurm, test, found x"):
        requirements(PROJECT / "setup.cfg", ["x"])


def test_outside_a_checkout(tmp_path):
    with pytest.raises(ConfigError, match="expected the project's checkout"):
        requirements(tmp_path / "setup.cfg", [])


def test_older_platforms_are_good_enough():
    tags = older("manylinux_2_18_x86_64")
    assert tags[:3] == ["manylinux_2_18_x86_64", "manylinux_2_17_x86_64", "manylinux_2_16_x86_64"]
    assert tags[-3:] == ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    assert older("macosx_11_0_arm64") == ["macosx_11_0_arm64"]


def project(folder, script: str):
    """A package that is published as source."""
    folder.mkdir()
    (folder / "setup.py").write_text(script)
    (folder / "alone.py").touch()
    return str(folder)


def test_a_package_is_built_and_installs_without_an_index(tmp_path):
    script = "from setuptools import setup; setup(name='alone', version='1', py_modules=['alone'])"
    build(project(tmp_path / "source", script), tmp_path / "wheels")
    [wheel] = (tmp_path / "wheels").iterdir()
    assert wheel.name == "alone-1-py3-none-any.whl"
    words = ["install", "--no-index", "--find-links", tmp_path / "wheels"]
    words += ["--target", tmp_path / "there", "alone"]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True)
    assert (tmp_path / "there/alone.py").exists()


def test_a_package_that_cannot_be_built(tmp_path):
    with pytest.raises(ConfigError, match="pip wheel: "):
        build(project(tmp_path / "source", FLAWED), tmp_path / "wheels")
