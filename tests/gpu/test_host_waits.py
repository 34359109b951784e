"""What torch itself says of waits inside a step on a GPU: none but the ones listed in
tests/unit/engine/training/test_host_waits.py."""

import json
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch

from tests.dist.processes import free_port
from tests.paths import ROOT
from tests.unit.engine.training.test_host_waits import CASES, PERMITTED, one_step
from tests.unit.host_waits import place

SAYS = "synchronizing CUDA operation"  # of torch.cuda.set_sync_debug_mode


@contextmanager
def heard(found: dict[str, int]):
    """Counts torch's warnings by the place that asked. Mode "error" would end the step at the first
    permitted wait."""

    def note(message, *_, **__):
        if SAYS in str(message):
            asked = place(above=2)
            found[asked] = found.get(asked, 0) + 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def main(shards: str, out: str) -> None:
    """In a process of its own: DeepSpeed knows one kind of accelerator a process."""
    from engine.distributed import zero

    device, result = zero.init_distributed(), {}
    for name, overrides in CASES.items():
        found = {}
        one_step(
            shards, [*overrides, "skysense.ep_size=1", "bf16.enabled=true"], device, heard(found)
        )
        with heard(check := {}):
            torch.ones((), device=device).item()
        result[name] = {"step": found, "a wait": check}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result, file)
    zero.shutdown()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_torch_hears_no_wait_but_those_listed(shards, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    environment |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.test_host_waits", str(shards), str(tmp_path / "found")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for found in json.loads((tmp_path / "found").read_text()).values():
        assert sum(found["a wait"].values()) == 1  # torch does warn, and the warning is heard
        assert not found["step"].keys() - PERMITTED.keys()


if __name__ == "__main__":
    main(*sys.argv[1:])
