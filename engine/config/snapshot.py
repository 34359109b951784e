"""What a run folder keeps of a run's configuration and of the code that ran."""

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from data.files import write_whole
from engine.config.code import versions
from engine.config.load import Config
from engine.errors import ConfigError


def snapshot(config: Config, run_dir: str | os.PathLike, *, resume: bool = False) -> None:
    """Write ``config.json`` (the merged file) and ``environment.json`` into the run folder.

    Only rank 0 calls it.

    Raises:
        ConfigError: The folder holds another configuration, and this run does not resume it.
    """
    run_dir = Path(run_dir)
    file = run_dir / "config.json"
    if file.exists() and not resume and json.loads(file.read_text()) != config.merged:
        raise ConfigError(
            f"{run_dir}: output folder of another run ({file} differs); "
            f"choose another --run_dir, or continue that run with --resume"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_json(file, config.merged)
    _write_json(run_dir / "environment.json", environment())


def environment() -> dict:
    """What code and packages this process runs, as JSON.

    ``git`` is None outside a checkout. A package that is not installed has the version None.
    """
    packages = versions()
    python = packages.pop("python")
    return {
        "command": command_line(),
        "git": _git_revision(),
        "python": python,
        "packages": packages,
        "host": platform.node(),
    }


def command_line() -> str:
    """The command that started this process, to be pasted into a shell.

    The deepspeed launcher starts ``python -u SCRIPT --local_rank=N ...`` on each rank. In its place
    the launcher's own command is returned, which starts all ranks.
    """
    words = [word for word in sys.orig_argv if not word.startswith("--local_rank=")]
    if len(words) == len(sys.orig_argv):
        return shlex.join(words)
    launcher = ["deepspeed"]
    nodes = os.environ.get("CROSS_SIZE", "1")
    if nodes != "1":
        launcher += ["--num_nodes", nodes]
    launcher += ["--num_gpus", os.environ["LOCAL_SIZE"]]
    words = words[words.index("-u") + 1 :]
    if words[0] == "-m":
        words[0] = "--module"
    return shlex.join(launcher + words)


def _git_revision() -> str | None:
    """The checkout's commit, with ``+changes`` behind it when files differ from it."""
    try:
        revision = _git("rev-parse", "HEAD")
    except FileNotFoundError:
        return None  # no git on this machine
    if revision.returncode:
        return None  # not a checkout
    commit = revision.stdout.strip()
    if _git("status", "--porcelain").stdout.strip():
        return commit + "+changes"
    return commit


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("git", "-C", str(Path(__file__).parent), *arguments)
    return subprocess.run(command, capture_output=True, text=True)


def _write_json(path: Path, content: dict) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_whole(path, json.dumps(content, indent=2) + "\n")
