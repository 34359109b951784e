"""The paper's model, 2.8 billion parameters, on one real GPU: every loss on, from real shards."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from tests.paths import ROOT

MEMORY = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
LARGE = 120e9  # bytes, from which ds_configs/one_gpu.json fits as it is
STEPS = 20


@pytest.mark.gpu
@pytest.mark.skipif(MEMORY < 75e9, reason=f"needs a GPU with 80 GB, found {MEMORY / 1e9:.0f} GB")
def test_the_full_model_trains_20_steps(shards, tmp_path):
    command = [
        sys.executable,
        "-m",
        "launch",
        "step",
        "--deepspeed_config",
        "ds_configs/one_gpu.json",
        "--set",
        f"skysense.data.shards={shards}",
        "--set",
        f"train_batch_size={8 if MEMORY > LARGE else 2}",
        "--set",
        "skysense.text.random=true",
        "--steps",
        str(STEPS),
        "--json",
        str(tmp_path / "step.json"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "CUDA_VISIBLE_DEVICES": "0"},
        capture_output=True,
        text=True,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "step.json").read_text())
    assert found["counts"]["parameters"] > 2.5e9 and found["hardware"]["kind"] == "cuda"
    training = found["training"]
    assert training["applied"] == STEPS and training["finite"]
    assert all(math.isfinite(value) for value in training["last_terms"].values())
    print(done.stdout)  # the figures, for whoever runs this with -s
