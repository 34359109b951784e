"""Runs the kernels' tests: compiled on a GPU, through Triton's interpreter elsewhere.

Triton decides at import whether it interprets, and other tests of the same pytest process may have
imported it already. So without a GPU the tests of each file run in a process of their own, with
TRITON_INTERPRET=1 from its start, and their reports are shown here as usual. ``TRITON_INTERPRET=1
pytest tests/kernels`` uses one process.
"""

import json
import os
import subprocess
import sys
import tempfile

import pytest
import torch

from tests.kernels.interpreter import mend

REPORTS = "SKYSENSE_TEST_REPORTS"  # where the process of a file writes its reports, one JSON a line
TIMEOUT = 600  # seconds for a file
_files: dict = {}  # file -> ({node id: reports}, output)


@pytest.fixture(autouse=True)
def kernels_on(monkeypatch):
    """Every test here asks for the kernels."""
    monkeypatch.setenv("SKYSENSE_KERNELS", "on")


@pytest.fixture(autouse=True)
def poison():
    """New memory is NaN: an entry that no kernel writes shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def device():
    """The device on which the kernels run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_runtest_setup(item):
    """Tests marked ``gpu`` need compiled kernels."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def pytest_runtest_protocol(item):
    """Shows what the process of this item's file reported."""
    here = item.path.is_relative_to(
        os.path.dirname(__file__)
    )  # pytest calls this hook for the items of all folders
    if not here or torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        return None  # as usual, in this process
    if item.path not in _files:
        wanted = [other.nodeid for other in item.session.items if other.path == item.path]
        _files[item.path] = _run(item.config, wanted)
    found, output = _files[item.path]
    reports = found.get(item.nodeid, [])
    if (
        not reports or reports[-1].when != "teardown"
    ):  # the process ended before it was done with this test
        lost = f"no report of this test from the process of its file, which said:\n{output[-4000:]}"
        reports = [
            *reports,
            pytest.TestReport(item.nodeid, item.location, {}, "failed", lost, "call"),
        ]
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


class Reporter:
    """In the process of a file: hands each report to the process that asked for it."""

    def __init__(self, config, path):
        self.config, self.path = config, path

    def pytest_runtest_logreport(self, report):
        """Appends at once: a later crash must not take earlier reports with it."""
        line = json.dumps(
            self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        )
        with open(self.path, "a") as file:
            file.write(line + "\n")


def pytest_configure(config):
    """Set up by ``_run``."""
    mend()
    if REPORTS in os.environ:
        config.pluginmanager.register(Reporter(config, os.environ[REPORTS]))


def _run(config, wanted):
    """Runs the tests of one file -> ({node id: reports}, the output of their process)."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *wanted]
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as file:
        environment = {**os.environ, "TRITON_INTERPRET": "1", REPORTS: file.name}
        try:
            output = subprocess.run(
                command,
                cwd=config.rootpath,
                env=environment,
                text=True,
                timeout=TIMEOUT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ).stdout
        except subprocess.TimeoutExpired:
            output = f"not done after {TIMEOUT} s"
        lines = file.read().splitlines()
    reports: dict = {}
    for line in lines:
        report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
        if isinstance(report.longrepr, list):  # (file, line, reason) of a skip; JSON has no tuples
            report.longrepr = tuple(report.longrepr)
        reports.setdefault(report.nodeid, []).append(report)
    return reports, output
