"""What a measured step reports, on inputs whose answers are known: traces, sums over ranks, tables,
yardsticks."""

import io
import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from matplotlib.text import Text
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from engine.cost.count import StepFlops
from engine.profile.ceiling import matmul_rate
from engine.profile.figure import picture, short
from engine.profile.hardware import peak_memory, processor
from engine.profile.report import check_outputs, publish
from engine.profile.summary import RankFigures, figures, operators, training
from engine.profile.text import text
from engine.profile.trace import OTHER, STEP, StepTrace, covered, read_trace, summarise
from engine.training.step import StepReport, part

CPU = torch.device("cpu")


def note(name, begin, end, category="user_annotation", **args):
    """An event of a Chrome trace; microseconds."""
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": end - begin, "args": args}


def kernel(number, launch, begin, end, name="gemm"):
    """A kernel and the call that launched it."""
    return [
        note("cudaLaunchKernel", launch, launch + 1, "cuda_runtime", correlation=number),
        note(name, begin, end, "kernel", correlation=number),
    ]


@pytest.mark.parametrize(
    "intervals, length",
    [
        ([], 0),
        ([(0, 2)], 2),
        ([(5, 7), (0, 2)], 4),
        ([(0, 4), (1, 2)], 4),
        ([(0, 2), (1, 3), (3, 4)], 4),
    ],
)
def test_union(intervals, length):
    assert covered(intervals) == length


def test_cpu_step():
    found = summarise(
        [
            note(STEP, 100, 1100),
            note("step/data", 100, 150),
            note("step/student", 160, 600),
            note("step/report", 600, 900),
            note("aten::mm", 200, 300, "cpu_op"),
            note("gloo:all_reduce", 300, 400),
            note("gloo:all_to_all", 350, 420),
            note("Optimizer.step#AdamW.step", 200, 250),
            {"ph": "M", "name": "process_name"},
        ]
    )
    assert found.step == pytest.approx(1e-3)
    assert found.parts == pytest.approx(
        {"data": 5e-5, "student": 4.4e-4, "report": 3e-4, OTHER: 2.1e-4}
    )
    assert found.communication == pytest.approx(1.2e-4)
    assert found.exposed is None and found.busy is None


def test_gpu_step_is_cut_where_the_device_changes_parts():
    """The host is done launching at 60; the device works from 30 to 900."""
    found = summarise(
        [
            note(STEP, 0, 1000),
            note("step/data", 0, 20),
            note("step/inputs", 20, 25),
            note("step/student", 25, 40),
            note("step/vote", 40, 42),
            note("step/backward", 42, 60),
            note(
                "step/student", 90, 400, "gpu_user_annotation"
            ),  # torch's own picture of a span is not a second span
            *kernel(1, 21, 30, 40),
            *kernel(2, 26, 90, 400),
            *kernel(3, 45, 400, 700),
            *kernel(4, 50, 500, 900, "ncclDevKernel"),
            *kernel(5, 61, 900, 910),
        ]
    )  # the last: launched outside every part
    assert found.parts == pytest.approx(
        {"data": 3e-5, "inputs": 6e-5, "student": 3.1e-4, "backward": 6e-4, OTHER: 0}
    )
    assert sum(found.parts.values()) == pytest.approx(found.step)
    assert found.communication == pytest.approx(4e-4)
    assert found.exposed == pytest.approx(2e-4)  # from 700 to 900
    assert found.busy == pytest.approx(8.3e-4)


def test_real_trace_and_operators(tmp_path):
    a = torch.randn(64, 64)
    with (
        profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler,
        record_function(STEP),
    ):
        with part("student"):
            for _ in range(3):
                a @ a
        with part("losses"):
            a.exp().sum()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    averages = {row.key: row for row in profiler.key_averages()}
    found = read_trace(tmp_path / "trace.json")
    assert list(found.parts) == ["student", "losses", OTHER] and found.communication == 0
    for name in ("student", "losses"):  # torch's own sums
        assert found.parts[name] == pytest.approx(
            averages[f"step/{name}"].cpu_time_total / 1e6, rel=1e-3
        )
    rows = operators(profiler.key_averages(), found.step, cuda=False)
    table = {row["name"]: row for row in rows}
    assert table["aten::mm"]["calls"] == 3
    assert table["aten::mm"]["seconds"] == averages["aten::mm"].self_cpu_time_total / 1e6
    assert not any(name.startswith("step") for name in table)
    assert [row["seconds"] for row in rows] == sorted(
        (row["seconds"] for row in rows), reverse=True
    )
    assert all(row["share"] == row["seconds"] / found.step for row in rows)
    assert sum(row["share"] for row in rows) <= 1
    assert operators(profiler.key_averages(), found.step, cuda=True) == []


FLOPS = StepFlops(
    student_forward=10e9, teacher_forward=10e9, heads=5e9, backward=25e9, recomputation=10e9
)


def ranks():
    """Two ranks of which now one, now the other is the slower."""
    first = StepTrace(4.0, {"student": 3.0, OTHER: 1.0}, 1.0, None, None)
    second = StepTrace(6.0, {"student": 4.0, OTHER: 2.0}, 3.0, None, None)
    return [
        RankFigures([1.0, 5.0, 2.0], [0.1, 0.0, 0.3], {"resident": 10}, 30e9, first),
        RankFigures([2.0, 4.0, 1.0], [0.0, 0.4, 0.3], {"resident": 20}, 50e9, second),
    ]


def test_figures_over_ranks():
    found = figures(ranks(), batch=4, flops=FLOPS, matmul_side=2048)
    assert found["step_seconds"] == {"median": 2.0, "min": 2.0, "max": 5.0, "all": [2.0, 5.0, 2.0]}
    assert found["samples_per_second"] == 2.0
    assert found["data_wait"]["all"] == [0.1, 0.4, 0.3]
    assert found["data_wait"]["share"] == pytest.approx(0.8 / 9)
    assert found["memory"] == {"resident": 20}
    flops = found["flops"]
    # 4 samples of 50 GFLOPs in 2 s are 100 GFLOP/s, of 80 that the two reach together;
    # recomputation does not count
    assert (
        flops["sample_model"] == 50e9
        and flops["sample_hardware"] == 60e9
        and flops["step_model"] == 200e9
    )
    assert flops["per_second"] == 100e9 and flops["mfu"] == 1.25
    assert flops["matmul"] == {"side": 2048, "per_second": 80e9, "ranks": [30e9, 50e9]}
    traced = found["traced_step"]
    assert traced["seconds"] == 5.0 and traced["parts"] == {"student": 3.5, OTHER: 1.5}
    assert traced["communication"] == {
        "seconds": 2.0,
        "share": 0.4,
        "exposed": None,
        "ranks": [1.0, 3.0],
    }
    assert traced["busy_share"] is None


def test_figures_of_a_gpu():
    trace = StepTrace(2.0, {"student": 2.0}, 0.5, 0.25, 1.5)
    found = figures(
        [RankFigures([2.0], [0.0], {"resident": 1, "allocated": 7}, 1e12, trace)],
        batch=1,
        flops=FLOPS,
        matmul_side=8192,
    )
    assert (
        found["traced_step"]["busy_share"] == 0.75
        and found["traced_step"]["communication"]["exposed"] == 0.25
    )
    assert found["memory"] == {"resident": 1, "allocated": 7}


def report(loss, applied=True):
    return StepReport(
        applied=applied,
        schedule=None,
        terms={"total": loss, "ita": 1.0},
        weights={"ita": 1.0},
        statistics={},
        gradient_norm=1.0,
        expert_load=None,
    )


def test_training_says_what_was_not_trained():
    good = training([report(3.0), report(2.0)])
    assert good == {
        "steps": 2,
        "applied": 2,
        "finite": True,
        "losses": [3.0, 2.0],
        "first_loss": 3.0,
        "last_loss": 2.0,
        "last_terms": {"total": 2.0, "ita": 1.0},
    }
    bad = training([report(3.0), report(math.nan, applied=False)])
    assert bad["applied"] == 1 and not bad["finite"] and bad["losses"] == [3.0, None]


def whole(reports=None):
    """A report as the command makes it."""
    return {
        "configuration": "x.json",
        "hardware": {"device": "chip", "kind": "cpu", "ranks": 2, "threads": 1, "type": "float32"},
        "environment": {"git": "abc", "packages": {"torch": "2", "deepspeed": "0"}},
        "counts": {"warmup": 1, "timed": 3, "traced": 2, "batch": 4, "parameters": 10**6},
        "training": training(reports or [report(3.0), report(2.0)]),
        **figures(ranks(), batch=4, flops=FLOPS, matmul_side=2048),
        "operators": [{"name": "aten::mm", "calls": 7, "seconds": 0.5, "share": 0.1}],
    }


def test_text_has_the_figures():
    lines = text(whole())
    assert (
        "2 ranks on chip" in lines and "2 s median, 2 s to 5 s" in lines and "2 samples/s" in lines
    )
    assert "125.0 % (MFU) of 0.08 TFLOP/s" in lines and "2048 x 2048 x 2048" in lines
    assert "2 of 2 steps applied, loss 3.0000 -> 2.0000, all terms finite" in lines
    assert re.search(r"student +3.5 s +70.0%", lines) and re.search(
        r"communication +2 s +40.0%", lines
    )
    assert re.search(r"7 +500 ms +10.0%  aten::mm", lines)
    lines = text(whole([report(3.0), report(math.nan, applied=False)]))
    assert "1 of 2 steps applied, loss 3.0000 -> not finite, NOT ALL TERMS FINITE" in lines


def test_publish_writes_what_it_prints(tmp_path):
    out, stream = tmp_path / "x.json", io.StringIO()
    publish(whole(), stream, as_json=True, json_file=out, plot=tmp_path / "x.svg")
    assert (
        json.loads(stream.getvalue())
        == json.loads(out.read_text())
        == json.loads(json.dumps(whole()))
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.svg"]


def test_picture_has_the_figures():
    drawn = {words.get_text() for words in picture(whole()).findobj(Text)}
    assert any("2 ranks on chip" in words and "MFU 125.0 %" in words for words in drawn)
    assert {"student", "3.5 s, 70.0 %", "of these, communication", "2 s, 40.0 %"} <= drawn
    assert {"aten::mm", "10.0 %, 7 calls"} <= drawn


@pytest.mark.parametrize(
    "option, name",
    [("json", "none/x.json"), ("plot", "x.jpg"), ("plot", "x"), ("trace", "file")],
)
def test_outputs_are_checked_first(tmp_path, option, name):
    (tmp_path / "file").touch()
    paths = {"json_file": None, "plot": None, "trace": None}
    paths["json_file" if option == "json" else option] = tmp_path / name
    with pytest.raises(ValueError, match=f"^--{option}: expected .*{re.escape(name)}"):
        check_outputs(**paths)


def test_folder_of_traces_is_made(tmp_path):
    check_outputs(
        json_file=tmp_path / "x.json", plot=tmp_path / "x.png", trace=tmp_path / "a" / "b"
    )
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    "seconds, words", [(0.0001234, "0.123 ms"), (0.25, "250 ms"), (1.5, "1.5 s"), (1234, "1,234 s")]
)
def test_short(seconds, words):
    assert short(seconds) == words


def test_matmul_is_of_the_stated_size():
    with FlopCounterMode(display=False) as counter:
        rate = matmul_rate(CPU, torch.float32, 96, seconds=0.01)
    assert 0 < rate < math.inf
    assert counter.get_total_flops() > 0 and counter.get_total_flops() % (2 * 96**3) == 0


def test_peak_memory_is_a_peak_of_this_process():
    block = torch.ones(64 * 2**20)  # 256 MiB
    while_held = peak_memory(CPU)["resident"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert (
        while_held > 0.99 * pages * os.sysconf("SC_PAGE_SIZE") > block.nbytes
    )  # Linux counts in batches of pages
    del block
    assert peak_memory(CPU)["resident"] > 0.99 * while_held


def test_processor():
    assert (
        processor("processor\t: 0\nmodel name\t: Chip 7: fast\nmodel name\t: Chip 7: fast\n")
        == "Chip 7: fast"
    )
    assert processor("processor\t: 0\nBogoMIPS\t: 2\n") == "unnamed CPU"
