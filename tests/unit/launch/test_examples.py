"""The examples at the end of each command's help: their options exist, and the quick ones run."""

import shlex

import pytest

from launch.__main__ import BENCHMARKS, COMMANDS, build_parser
from tests.commands import build_dataset, skysense
from tests.paths import ROOT

QUICK = ("shards", "audit", "inspect", "classes", "flops", "params", "doctor", "bench codecs")
NAMES = [*COMMANDS, *(f"bench {name}" for name in BENCHMARKS)]


def examples(name: str) -> list[list[str]]:
    """The words of each example, behind ``skysense``."""
    done = skysense(*name.split(), "--help")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("\nexamples:\n")[2].splitlines()
    found = []
    for line in lines:
        if line.startswith("  skysense "):
            found.append(shlex.split(line)[1:])
        elif line.startswith("  deepspeed "):
            found.append(launched(shlex.split(line)))
    return found


def launched(words: list[str]) -> list[str]:
    """The words behind ``skysense`` of a command of the deepspeed launcher."""
    if words[1] == "--module":
        return words[3:]
    return ["pretrain", *words[2:]]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_shows_examples_whose_options_exist(name):
    found = examples(name)
    assert found
    for words in found:
        assert words[: len(name.split())] == name.split()
        build_parser(words).parse_args(words)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder in which the examples find the project's files, an archive and shards."""
    folder = tmp_path_factory.mktemp("workspace")
    build_dataset(folder)
    (folder / "ds_configs").symlink_to(ROOT / "ds_configs")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_quick_examples_run_as_written(name, workspace):
    for words in examples(name):
        if name == "shards":
            words = [*words, "--overwrite"]  # the folder of the example is there already
        done = skysense(*words, folder=workspace)
        if name == "doctor" and "--config" in words and done.returncode == 2:
            # the machine of the test may lack what the example's configuration needs
            assert "error: ds_configs/" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
