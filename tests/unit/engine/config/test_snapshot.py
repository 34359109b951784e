"""What a run folder keeps of a run's configuration and of the command that started it."""

import json
import shlex
import sys

import pytest

from engine.config.load import Config, load
from engine.config.snapshot import command_line, snapshot
from engine.errors import ConfigError
from tests.unit.engine.config.files import DEMO


def test_run_folder_keeps_what_ran_and_refuses_another_run(tmp_path):
    config = load(DEMO, world_size=2)
    other = load(DEMO, ["skysense.seed=5"], world_size=2)
    run = tmp_path / "run"
    snapshot(config, run)
    snapshot(config, run)  # a start that died before its first checkpoint
    again = load(run / "config.json", world_size=2)
    assert isinstance(again, Config) and again == config
    assert json.loads((run / "environment.json").read_text())["packages"]["deepspeed"] == "0.19.8"
    with pytest.raises(ConfigError, match="output folder of another run"):
        snapshot(other, run)
    snapshot(other, run, resume=True)
    assert json.loads((run / "config.json").read_text()) == other.merged


def test_the_command_can_be_pasted_into_a_shell(monkeypatch):
    monkeypatch.delenv("CROSS_SIZE", raising=False)
    words = ["/venv/bin/python", "-m", "launch", "step", "--set", "skysense.text.prompt=a view"]
    monkeypatch.setattr(sys, "orig_argv", words)
    assert shlex.split(command_line()) == words
    monkeypatch.setenv("LOCAL_SIZE", "8")
    launched = ["python", "-u", "launch/pretrain.py", "--local_rank=0", "--run_dir", "runs/my run"]
    monkeypatch.setattr(sys, "orig_argv", launched)
    assert command_line() == "deepspeed --num_gpus 8 launch/pretrain.py --run_dir 'runs/my run'"
    monkeypatch.setenv("CROSS_SIZE", "16")
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "-u", "-m", "launch", "--local_rank=3", "step"]
    )
    assert command_line() == "deepspeed --num_nodes 16 --num_gpus 8 --module launch step"
