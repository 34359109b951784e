"""The command that shows sensors."""

import pytest

from data.errors import InputError
from launch.sensors import learn


def test_a_sensors_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: expected a sensors file, found no such"):
        learn(str(tmp_path / "none.json"))
