"""Records of a run: a line a step, cut where a continued run takes over, also for TensorBoard."""

import json
import math
import re

import pytest

from data.errors import InputError
from engine.errors import ConfigError
from engine.training.metrics import FILE, Metrics, read


def record(metrics: Metrics, step: int, loss: float) -> None:
    metrics.log(
        step, {"loss": loss, "experts": {"ms": [0.25, 0.75]}}, samples=8, seconds=2.0, waited=0.5
    )


def test_every_step_is_a_whole_line_at_once(tmp_path, capsys):
    metrics = Metrics(tmp_path, steps=3)
    record(metrics, 0, 4.5)
    (line,) = (tmp_path / FILE).read_text().splitlines()  # flushed: a crash now loses nothing
    kept = json.loads(line)
    assert kept["step"] == 0 and kept["loss"] == 4.5 and kept["experts"] == {"ms": [0.25, 0.75]}
    assert kept["samples_per_second"] == 4.0 and kept["data_wait"] == 0.25
    line = "step 1/3  loss 4.5000  4.00 samples/s  data wait 25 %  left 0:00:04\n"
    assert capsys.readouterr().out == line
    metrics.close()


def test_a_continued_run_cuts_what_it_repeats(tmp_path):
    first = Metrics(tmp_path, steps=9)
    for step in range(6):
        record(first, step, float(step))
    first.close()
    with open(tmp_path / FILE, "a") as file:
        file.write('{"step": 6, "lo')  # the machine went down here
    second = Metrics(tmp_path, steps=9, start=4)
    record(second, 4, 40.0)
    second.close()
    assert [(kept["step"], kept["loss"]) for kept in read(tmp_path)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 40),
    ]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    (tmp_path / FILE).write_text('{"step": 0}\n{"step"\n{"step": 2}\n')
    with pytest.raises(ConfigError, match="line 2 is not JSON"):
        Metrics(tmp_path, steps=9, start=3)


def test_values_that_json_lacks_become_null(tmp_path):
    metrics = Metrics(tmp_path, steps=1)
    metrics.log(0, {"loss": math.nan, "norms": [math.inf, 1.0]}, samples=1, seconds=1.0, waited=0.0)
    metrics.close()
    assert read(tmp_path)[0]["loss"] is None and read(tmp_path)[0]["norms"] == [None, 1.0]


def test_lines_are_shown_every_so_often_and_at_the_end(tmp_path, capsys):
    metrics = Metrics(tmp_path, steps=6, every=4)
    for step in range(6):
        record(metrics, step, 1.0)
    metrics.close()
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "1/6",
        "5/6",
        "6/6",
    ]
    assert len(read(tmp_path)) == 6


def test_other_ranks_write_nothing(tmp_path, capsys):
    metrics = Metrics(tmp_path, steps=1, rank=1)
    record(metrics, 0, 1.0)
    metrics.close()
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out


def test_a_full_disk_is_told_with_the_folder(tmp_path):
    metrics = Metrics(tmp_path, steps=2)
    metrics.file.close()
    metrics.file = open("/dev/full", "a")  # noqa: SIM115 (a device that has no room)
    line = f"{re.escape(str(tmp_path))}: the log cannot be written .no space left on device."
    with pytest.raises(InputError, match=line):
        record(metrics, 0, 3.0)


def test_tensorboard_has_the_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path, steps=2)
    record(metrics, 0, 3.0)
    record(metrics, 1, 2.0)
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 3.0), (1, 2.0)]
