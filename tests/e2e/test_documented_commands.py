"""The commands of README.md and docs/ are real: their options exist, and they run as written.

The commands of the README run in one folder, one after the other, as a new user types them. The
commands of the other pages run with ``make test-documentation``; what takes hours or another
machine is listed in ELSEWHERE with its reason.
"""

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch.__main__ import build_parser
from tests.commands import build_dataset, trained
from tests.environment import environment
from tests.paths import ROOT

PROGRAMS = ("skysense", "deepspeed", "make", "pytest", "sbatch", "pip")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"\w+=\S*")
# A command that begins like this does not run here, for this reason.
ELSEWHERE = {
    "make demo": "its parts run in the tests of commands, and CI runs it whole",
    "make test": "this test is a part of it",
    "make install": "it has made the environment of this test",
    "pip": "builds another project from its checkout",
    "skysense wheels": "downloads several GB; tests/unit/launch/test_wheels.py builds and installs",
    "sbatch": "needs SLURM; tests/e2e/test_slurm.py runs the templates where there is one",
    "skysense bench": "takes minutes to hours; tests/unit/*/bench run them at small sizes",
    "pytest": "runs as a part of make test",
}


@dataclass(frozen=True)
class Command:
    """A command line of a page."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        """The words as a shell splits them, without leading assignments."""
        words = shlex.split(self.line, comments=True)
        while ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
        return words

    @property
    def is_synopsis(self) -> bool:
        """Whether the line shows the form of a command: options in brackets, names in capitals."""
        return "[-" in self.line or "..." in self.line

    def reason_not_to_run(self) -> str | None:
        """Why this command cannot run here; None if it can."""
        text = " ".join(self.words)
        for beginning, reason in ELSEWHERE.items():
            if text.startswith(beginning):
                return reason
        return None


def commands_of(page: Path) -> list[Command]:
    """The command lines in the fenced blocks of a page, continued lines joined."""
    commands = []
    for block in FENCE.finditer(page.read_text()):
        if block["language"] in ("", "bash", "sh"):
            lines = re.sub(r"\\\n\s*", " ", block["body"]).splitlines()
            commands += [Command(page.relative_to(ROOT).as_posix(), line) for line in lines]
    return [command for command in commands if is_command(command.line)]


def is_command(line: str) -> bool:
    """Whether a line of a block starts one of PROGRAMS."""
    for word in line.split():
        if not ASSIGNMENT.fullmatch(word):
            return word in PROGRAMS
    return False


ALL = [command for page in PAGES for command in commands_of(page)]
README = [command for command in ALL if command.page == "README.md"]
OTHERS = [command for command in ALL if command.page != "README.md"]


def project_words(words: list[str]) -> list[str] | None:
    """The words behind ``skysense`` of a command of this project; None for another program's."""
    if words[0] == "skysense":
        return words[1:]
    if words[0] == "deepspeed" and "launch/pretrain.py" in words:
        return ["pretrain", *words[words.index("launch/pretrain.py") + 1 :]]
    if words[0] == "deepspeed" and "--module" in words:
        return words[words.index("--module") + 2 :]
    return None


def test_pages_show_commands():
    assert len(README) >= 12
    assert len(OTHERS) >= 25


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.page}: {command.line}")
def test_options_exist(command, capsys):
    if command.is_synopsis:
        pytest.skip("shows the form of a command")
    if command.words[0] == "make":
        done = subprocess.run(
            ["make", "-n", *command.words[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return
    words = project_words(command.words)
    if words is None:
        pytest.skip("another program's command")
    build_parser(words).parse_args(words)  # leaves with a message on a wrong option


def test_an_option_that_does_not_exist_is_found(capsys):
    with pytest.raises(SystemExit):
        build_parser(["flops"]).parse_args(["flops", "--presset", "paper"])
    assert "--presset" in capsys.readouterr().err


def workspace(folder: Path) -> Path:
    """A folder in which the documented commands find what the checkout holds."""
    for name in ("data", "ds_configs", "launch", "docs", "tests"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(command: Command, folder: Path) -> None:
    """Run a command line in a shell: it ends well, or says in one line what it needs."""
    env = environment()
    done = subprocess.run(
        ["bash", "-c", command.line],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode == 0:
        return
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    message = done.stdout[-2000:] + done.stderr[-4000:]
    assert done.returncode == 2, message
    assert len(errors) == 1, message
    assert "Traceback" not in done.stderr, message


def test_commands_of_the_readme_run_in_order(tmp_path):
    folder = workspace(tmp_path)
    runnable = [command for command in README if command.reason_not_to_run() is None]
    assert len(runnable) >= 12
    for command in runnable:
        run(command, folder)
    for made in ("report.html", "checkpoints/step-00000004/manifest.json"):
        assert (folder / "runs/own/pretrain" / made).is_file()
    assert (folder / "runs/own/exported/model.safetensors").is_file()
    assert (folder / "runs/own/audit/audit.html").is_file()


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory):
    """A folder as ``make demo`` leaves it, with what the other pages take for granted."""
    folder = workspace(tmp_path_factory.mktemp("project"))
    demo = folder / "runs" / "demo"
    shards = build_dataset(demo)
    for name in ("demo/pretrain", "off", "on"):
        trained(2, shards, folder / "runs" / name, "--set", "skysense.schedule.steps=2")
    (folder / "shards").symlink_to(shards)
    base = {"base": str(ROOT / "ds_configs" / "demo_cpu.json")}
    (folder / "my.json").write_text(json.dumps({"skysense": base}))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("command", OTHERS, ids=lambda command: f"{command.page}: {command.line}")
def test_commands_of_the_other_pages_run(command, after_the_demo):
    reason = command.reason_not_to_run()
    if command.is_synopsis or reason:
        pytest.skip(reason or "shows the form of a command")
    run(command, after_the_demo)
