"""Which path runs, kernel or reference, and what is said of it."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.errors import ModelError
from models.kernels import dispatch
from models.kernels.dispatch import KERNELS, active, kernel_path, survey
from tests.paths import PATIENCE

MODELS = Path(dispatch.__file__).parents[1]

HERE = torch.zeros(2)
ELSEWHERE = torch.zeros(2, device="meta")


class OnCuda:
    """What dispatch asks of a CUDA tensor."""

    device = torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No decision so far, nothing in the environment, triton installed."""
    monkeypatch.setattr(dispatch, "_decisions", {})
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    monkeypatch.delenv("SKYSENSE_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize(
    "wish, interpret, tensor, why_not, outcome",
    [
        (None, None, OnCuda, None, "PyTorch (not asked for by SKYSENSE_KERNELS)"),
        ("auto", None, OnCuda, None, "Triton"),
        ("on", None, OnCuda, None, "Triton"),
        ("off", None, OnCuda, None, "PyTorch (SKYSENSE_KERNELS=off)"),
        ("off", "1", HERE, None, "PyTorch (SKYSENSE_KERNELS=off)"),
        ("auto", None, HERE, None, "PyTorch (no CUDA device: the tensor is on cpu)"),
        ("on", None, HERE, None, "PyTorch (no CUDA device: the tensor is on cpu)"),
        ("on", "1", ELSEWHERE, None, "PyTorch (no CUDA device: the tensor is on meta)"),
        ("on", "1", HERE, None, "Triton, interpreted"),
        ("auto", "1", HERE, None, "PyTorch (TRITON_INTERPRET=1 without SKYSENSE_KERNELS=on)"),
        ("auto", "1", OnCuda, None, "PyTorch (TRITON_INTERPRET=1 without SKYSENSE_KERNELS=on)"),
        ("auto", None, OnCuda, "the window has 7 cells", "PyTorch (the window has 7 cells)"),
        ("on", "1", HERE, "the window has 7 cells", "PyTorch (the window has 7 cells)"),
    ],
)
def test_what_runs_and_why(monkeypatch, wish, interpret, tensor, why_not, outcome):
    if wish:
        monkeypatch.setenv("SKYSENSE_KERNELS", wish)
    if interpret:
        monkeypatch.setenv("TRITON_INTERPRET", interpret)
    assert kernel_path("attention", tensor, why_not=why_not) == outcome.startswith("Triton")
    assert active() == {"attention": outcome}
    if why_not is None:
        assert survey(tensor.device) == dict.fromkeys(KERNELS, outcome)
        assert active() == {"attention": outcome}  # looking decides nothing


def test_the_survey_names_every_kernel():
    calls = [
        node
        for path in MODELS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "kernel_path"
    ]
    assert {call.args[0].value for call in calls} == set(KERNELS)


def test_without_triton(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    monkeypatch.setenv("SKYSENSE_KERNELS", "auto")
    assert not kernel_path("attention", OnCuda)
    assert active() == {"attention": "PyTorch (triton is not installed)"}


def test_an_outcome_is_logged_once(monkeypatch, caplog):
    monkeypatch.setenv("SKYSENSE_KERNELS", "auto")
    caplog.set_level(logging.INFO)
    for _ in range(3):
        kernel_path("attention", OnCuda)
        kernel_path("attention", OnCuda, why_not="odd size")
        kernel_path("sinkhorn", OnCuda)
    assert [record.getMessage() for record in caplog.records] == [
        "kernel attention: Triton",
        "kernel attention: PyTorch (odd size)",
        "kernel sinkhorn: Triton",
    ]
    assert active() == {"attention": "Triton; PyTorch (odd size)", "sinkhorn": "Triton"}


@pytest.mark.parametrize("wish, level", [("auto", logging.INFO), ("on", logging.WARNING)])
def test_a_kernel_that_was_asked_for_and_cannot_run_is_a_warning(monkeypatch, caplog, wish, level):
    monkeypatch.setenv("SKYSENSE_KERNELS", wish)
    caplog.set_level(logging.INFO)
    assert not kernel_path("attention", HERE)
    assert [record.levelno for record in caplog.records] == [level]


def test_an_unknown_wish_is_refused(monkeypatch):
    monkeypatch.setenv("SKYSENSE_KERNELS", "yes")
    with pytest.raises(ModelError, match="SKYSENSE_KERNELS: expected off, on or auto, found 'yes'"):
        kernel_path("attention", HERE)
    with pytest.raises(ModelError, match="SKYSENSE_KERNELS: expected off, on or auto, found 'yes'"):
        survey(HERE.device)


def test_the_losses_need_no_triton():
    script = (
        "import sys; sys.modules['triton'] = None; "
        "import models.pretraining.losses.multi_granularity, models.kernels.dispatch"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)
