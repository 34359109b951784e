"""Data that many tests share: the bundled real samples as shards, built once a session by the real
commands."""

import signal

import hypothesis
import pytest

from data.tiles.modalities import MODALITIES
from tests.commands import build_dataset

SENSORS = MODALITIES._sensors
AUTHORITY = MODALITIES._authority


# A test measures no speed: other work may fill the machine.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_configure():
    """Heed what nohup and a start in the background ignore, which processes here would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _built_in_sensors_alone():
    """A test begins with the built-in sensors, whatever other tests' files have described."""
    MODALITIES._sensors = SENSORS
    MODALITIES._authority = AUTHORITY
    yield
    MODALITIES._sensors = SENSORS
    MODALITIES._authority = AUTHORITY


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder of shards of all bundled samples; tests that damage it work on a copy."""
    return build_dataset(tmp_path_factory.mktemp("dataset"))
