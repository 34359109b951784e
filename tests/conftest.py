"""Data that many tests share: the bundled real samples as shards, built once a session by the real
commands."""

import pytest

from tests.commands import build_dataset


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder of shards of all bundled samples; tests that damage it work on a copy."""
    return build_dataset(tmp_path_factory.mktemp("dataset"))
