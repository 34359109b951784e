"""How commands end: errors of users in one line, faults of this project with a traceback, a closed
pipe quietly."""

import os
import subprocess
import sys

import pytest

from data.errors import InputError
from engine.errors import USER_ERRORS, RankError
from launch import cli
from launch.__main__ import BENCHMARKS, COMMANDS
from tests.environment import environment
from tests.paths import ROOT


@pytest.mark.parametrize("kind", USER_ERRORS)
def test_errors_of_users_are_one_line(kind, capsys):
    def command() -> None:
        raise kind("seven is too many")

    with pytest.raises(SystemExit) as left:
        cli.run(command)
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: seven is too many\n"


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, RuntimeError, BrokenPipeError])
def test_faults_of_the_project_keep_their_traceback(kind):
    def command() -> None:
        raise kind("nobody expected this")

    with pytest.raises(kind, match="nobody expected this"):
        cli.run(command)


@pytest.mark.parametrize(
    "cause, shown",
    [
        (None, RankError),
        (InputError("no such file"), RankError),
        (PermissionError("not allowed"), RankError),
        (TypeError("a fault"), TypeError),
    ],
)
def test_a_fault_of_a_rank_keeps_its_traceback(cause, shown, capsys):
    def command() -> None:
        raise RankError("rank 1: it failed") from cause

    if shown is RankError:
        with pytest.raises(SystemExit):
            cli.run(command)
        assert capsys.readouterr().err == "error: rank 1: it failed\n"
    else:
        with pytest.raises(shown, match="a fault"):
            cli.run(command)


@pytest.mark.parametrize("status, code", [(None, 0), (0, 0), (1, 1), (75, 75)])
def test_the_exit_status_is_that_of_the_command(status, code):
    with pytest.raises(SystemExit) as left:
        cli.run(lambda: status)
    assert left.value.code == code


def raise_in_process(_: int) -> None:
    raise InputError("tile 3 is damaged")


def test_an_error_of_a_worker_process_is_one_line(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from data.jobs.tasks import on_workers\n"
        "from launch import cli\n"
        "from tests.unit.launch.test_cli import raise_in_process\n"
        "import sys\n"
        "def pool():\n"
        "    list(on_workers(raise_in_process, range(3), workers=2))\n"
        "def executor():\n"
        "    with ProcessPoolExecutor(1) as processes:\n"
        "        processes.submit(raise_in_process, 1).result()\n"
        "if __name__ == '__main__':\n"
        "    cli.run({'pool': pool, 'executor': executor}[sys.argv[1]])\n"
    )
    for way in ("pool", "executor"):
        done = subprocess.run(
            [sys.executable, program, way], env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr == "error: tile 3 is damaged\n"


def closed_pipe(*words: str) -> subprocess.CompletedProcess:
    """Run ``skysense`` with a standard output whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "launch", *words],
            cwd=ROOT,
            env=environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "line",
    [
        "classes",
        "params --spec small",
        "flops --preset demo --json",
        "doctor",
        "bench kernels --sizes tiny --rounds 1 --only sinkhorn",
        "prepare --manifest data/samples/manifest.jsonl --out {folder}/archive --workers 0",
    ],
)
def test_a_closed_pipe_ends_a_command_quietly(line, tmp_path):
    done = closed_pipe(*line.format(folder=tmp_path).split())
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_head_gets_its_line():
    command = f"{sys.executable} -m launch params | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "Parameters of SkySense V2, in millions\n"
    assert done.returncode in (0, 141)  # 0 where all was written before head left
    assert done.stderr == ""


def test_the_help_needs_no_heavy_library():
    program = (
        "import sys\n"
        "from launch.__main__ import build_parser\n"
        "build_parser([]).format_help()\n"
        "heavy = {'torch', 'numpy', 'rasterio', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


def test_each_command_is_a_file_of_its_own():
    modules = [command.module for command in (*COMMANDS.values(), *BENCHMARKS.values())]
    assert len(modules) == len(set(modules))
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
