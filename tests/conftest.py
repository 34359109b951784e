"""Data that many tests share: the bundled real samples as shards, built once a session by the real
commands."""

import pytest

from data.tiles.modalities import MODALITIES
from tests.commands import build_dataset


@pytest.fixture(autouse=True)
def _sensors_of_one_test(monkeypatch):
    """What a test's files say of sensors is forgotten when it ends."""
    monkeypatch.setattr(MODALITIES, "_sensors", MODALITIES._sensors)
    monkeypatch.setattr(MODALITIES, "_authority", MODALITIES._authority)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder of shards of all bundled samples; tests that damage it work on a copy."""
    return build_dataset(tmp_path_factory.mktemp("dataset"))
