"""The lines of a run's rollbacks."""

import json

import pytest

from engine.errors import ConfigError
from engine.training.rollback import FILE, Rollback, read, write

ONE = Rollback(
    number=1,
    step=9,
    reason="the loss has been above 7.0000 for 3 steps",
    checkpoint="checkpoints/step-00000004",
    first_sample=16,
    next_sample=36,
    attempt=2,
)


def test_what_is_written_is_read(tmp_path):
    assert read(tmp_path) == []
    other = Rollback(**{**vars(ONE), "number": 2, "checkpoint": "/elsewhere/step-00000004"})
    write(tmp_path, [ONE, other])
    assert read(tmp_path) == [ONE, other]
    assert len((tmp_path / FILE).read_text().splitlines()) == 2
    assert ONE.folder(tmp_path) == tmp_path / "checkpoints/step-00000004"
    assert str(other.folder(tmp_path)) == "/elsewhere/step-00000004"


@pytest.mark.parametrize("line", ["{", "[]", json.dumps({"number": 1})])
def test_something_else_is_refused_by_its_line(tmp_path, line):
    write(tmp_path, [ONE])
    with open(tmp_path / FILE, "a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match=r"rollbacks.jsonl: line 2: expected a rollback"):
        read(tmp_path)
