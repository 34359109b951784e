"""The cost of a training step against torch's counter around a real one, and the command that
prints it."""

import json
import subprocess
import sys
from dataclasses import replace

import matplotlib.colors
import matplotlib.image
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data.tiles.classes import NAMES
from engine.config.load import load
from engine.cost.count import expected_rows, step_costs, step_flops
from engine.cost.figure import COLOURS, family
from engine.training.objective import Objective, to_views
from models.count.cost import map_sides
from models.features import FUSED
from models.initialise import initialise
from models.pretraining.model import Pretraining
from models.reducer import Reducer
from tests.commands import TINY, skysense
from tests.environment import environment
from tests.paths import ROOT
from tests.unit.batches import whole_batch

PAPER = ROOT / "ds_configs" / "paper_128gpu.json"


def counted(function) -> tuple[int, object]:
    """FLOPs that torch's counter sees, and what the function returns."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        result = function()
    return counter.get_total_flops(), result


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [
            'skysense.data.views.global_pixels={"hr":96,"ms":16,"sar":12}',
            "skysense.loss.koleo=0.1",
            "skysense.loss.centring=mean",
        ],
        ["skysense.recompute=blocks", "skysense.model.moe=null", "skysense.ep_size=1"],
        ["skysense.recompute=windows"],
        ["skysense.recompute=pointwise"],
    ],
)
def test_a_real_step_equals_the_count(overrides):
    settings = load(TINY, overrides).settings
    costs = step_costs(settings, samples=1)
    expected, again = costs.flops, sum(cost.recomputed for cost in costs.losses)
    # the head loss computes logits again and makes the gradients of the last layer in its forward
    # pass
    early = again + sum(cost.backward for cost in costs.losses if cost.module.endswith(", logits"))
    student, teacher = (Pretraining(settings.model, recompute=settings.recompute) for _ in range(2))
    for model in (student, teacher):
        initialise(model, settings.seed)
    teacher.eval().requires_grad_(False)
    text = torch.randn(len(NAMES), settings.model.text_width)
    objective = Objective(
        settings.loss, student=student, teacher=teacher, text=text, reducer=Reducer()
    )
    batch = whole_batch(settings)
    views = to_views(batch, torch.device("cpu"))

    flops, targets = counted(lambda: teacher(views))
    assert flops == expected.teacher_forward
    flops, outputs = counted(lambda: student(views))
    assert flops == expected.student_forward
    flops, losses = counted(lambda: objective(outputs, targets, batch, temperature=0.07))
    update, _ = counted(lambda: student.update_context(outputs, Reducer()))
    assert flops + update == expected.heads + early
    flops, _ = counted(losses.total.backward)
    assert flops + early == expected.backward + expected.recomputation
    assert (expected.recomputation > again) == (settings.recompute in ("blocks", "windows"))
    assert expected.hardware == expected.model + expected.recomputation


def test_views_of_the_whole_tile_meet_everywhere():
    settings = load(PAPER).settings
    whole = replace(
        settings.data.views, global_scale=(1.0, 1.0), local_scale=(1.0, 1.0), aspect=(1.0, 1.0)
    )
    settings = replace(settings, data=replace(settings.data, views=whole))
    frames = {**settings.data.frames, FUSED: 1}
    for feature, by_size in expected_rows(settings, samples=3).items():
        for size, views, partners in (("global", 2, 1), ("local", 6, 2)):
            pixels = settings.data.views.sizes[size].pixels
            grid = map_sides(settings.model, pixels)[feature] ** 2
            objects = min(settings.loss.clusters, max(1, grid // 4))
            rows = frames[feature] * views * grid
            assert by_size[size] == (
                rows,
                rows * partners,
                frames[feature] * views * partners * objects,
            )


def test_rows_follow_from_the_seed_and_hardly_vary_with_it():
    settings = load(PAPER).settings
    costs = [step_costs(replace(settings, seed=seed)).flops for seed in (0, 0, 1)]
    assert costs[0] == costs[1] != costs[2]
    assert costs[2].heads == pytest.approx(costs[0].heads, rel=0.03)


def test_step_flops_of_the_paper_preset():
    found = step_flops(load(PAPER).settings)
    assert (
        found.student_forward == found.teacher_forward
        and round(found.student_forward / 1e9) == 8418
    )
    assert found.student_forward == pytest.approx(8109.52e9, rel=0.05)
    costs = step_costs(load(PAPER).settings)
    again = [cost.module for cost in costs.forward if cost.recomputed]
    assert {module[: len("stage 1")] for module in again} == {"stage 1", "stage 2"}  # "windows"
    assert sum(cost.recomputed for cost in costs.losses) < 0.02 * found.model
    assert 0 < found.recomputation < 0.05 * found.model
    assert found.hardware == found.model + found.recomputation > found.model
    assert 4 < found.model / found.student_forward < 4.2  # student 1 + 2, teacher 1, and the heads


def test_every_module_has_a_colour_of_its_kind():
    costs = step_costs(load(PAPER).settings).forward
    assert {family(cost.module) for cost in costs} == set(COLOURS) - {"heads and losses"}
    assert [
        family(name)
        for name in ("stage 3 experts", "stage 3 attention", "fusion attention", "query decoder")
    ] == ["experts", "stage 3", "fusion", "other"]


# ------------------------------------------------------------------------------------ the command


def flops(*arguments) -> subprocess.CompletedProcess:
    return skysense("flops", *arguments)


def test_json_holds_every_entry_and_adds_up():
    done = flops("--preset", "paper", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    forward, losses = (
        [cost for cost in found["costs"] if cost["part"] == part] for part in ("forward", "losses")
    )
    sample = found["sample"]
    assert (
        sum(cost["flops"] for cost in forward)
        == sample["student_forward"]
        == sample["teacher_forward"]
    )
    assert sum(cost["flops"] for cost in losses) == pytest.approx(sample["heads"])
    assert sum(cost["backward"] for cost in found["costs"]) == pytest.approx(sample["backward"])
    assert found["batch"] == {
        "samples": 1024,
        "model": 1024 * sample["model"],
        "hardware": 1024 * sample["hardware"],
    }
    assert found["paper"]["student_forward_ratio"] == pytest.approx(
        sample["student_forward"] / 8109.52e9
    )
    assert found["paper"]["flops_per_gpu_second"] == pytest.approx(sample["model"] / 0.2607)
    assert found["paper"]["share_of_peak"] == pytest.approx(sample["model"] / 0.2607 / 148e12)
    assert found["basis"]["views"]["global"] == {
        "views": 2,
        "pixels": {"hr": 384, "ms": 24, "sar": 24},
        "fusion_grid": 6,
    }
    assert found["basis"]["rows_of_heads"]["samples_drawn"] > 100


def test_tables_say_the_same_as_json():
    plain, data = (
        flops("--preset", "paper"),
        json.loads(flops("--preset", "paper", "--json").stdout),
    )
    assert plain.returncode == 0, plain.stderr
    rows = {line[:22].strip(): line[22:].split() for line in plain.stdout.splitlines()}
    for title, key in (
        ("student forward", "student_forward"),
        ("teacher forward", "teacher_forward"),
        ("heads and losses", "heads"),
        ("backward", "backward"),
        ("model FLOPs", "model"),
    ):
        assert rows[title][0] == f"{data['sample'][key] / 1e9:,.1f}"
    gate = sum(cost["flops"] for cost in data["costs"] if cost["module"] == "stage 3 gate")
    assert rows["stage 3 gate"][-2] == f"{gate / 1e9:.1f}"
    attention = [cost["flops"] for cost in data["costs"] if cost["module"] == "stage 3 attention"]
    words = [f"{value / 1e9:,.1f}" for value in (*attention, sum(attention))]
    share = f"{100 * sum(attention) / data['sample']['student_forward']:.1f}%"
    assert rows["stage 3 attention"] == [*words[:3], "-", *words[3:6], "-", "-", words[6], share]
    assert "the paper's 8109.52" in plain.stdout and "mean of 512 samples" in plain.stdout


def test_a_file_with_overrides_and_its_picture(tmp_path):
    done = flops(
        "--config",
        TINY,
        "--set",
        "skysense.recompute=blocks",
        "--json",
        "--plot",
        tmp_path / "cost.png",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["paper"] is None and found["sample"]["recomputation"] > 0
    assert (
        found["sample"]["hardware"] == found["sample"]["model"] + found["sample"]["recomputation"]
    )
    image = matplotlib.image.imread(tmp_path / "cost.png")[..., :3]
    for name in COLOURS:  # every family is drawn
        shade = torch.tensor(matplotlib.colors.to_rgb(COLOURS[name]))
        assert (torch.from_numpy(image) - shade).abs().amax(-1).lt(0.01).sum() > 50, name


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--preset", "papr"], "expected one of paper, one_gpu, demo, found 'papr'"),
        ([], "expected either --preset or --config, found neither"),
        (
            ["--preset", "demo", "--config", TINY],
            "expected either --preset or --config, found both",
        ),
        (["--config", "nowhere.json"], "nowhere.json: there is no such configuration file"),
        (["--config", "tests"], "tests: cannot be read: Is a directory"),
        (
            ["--config", "docs/figures/parameters.png"],
            "parameters.png: expected JSON, found a file that is no text",
        ),
        (["--preset", "demo", "--set", "skysense.data.views.global_pixels.ms=6"], "global_pixels"),
        (["--preset", "demo", "--plot", "cost.jpg"], "expected a name ending in .png, .svg, .pdf"),
        (
            ["--preset", "demo", "--plot", "nowhere/cost.png"],
            "in a folder that exists, found nowhere/cost.png",
        ),
    ],
)
def test_wrong_arguments_get_one_line(arguments, complaint):
    done = flops(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert complaint in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_command_needs_no_deepspeed():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['skysense', 'flops', '--preset', 'demo', '--json']\n"
        "try:\n"
        "    runpy.run_module('launch', run_name='__main__')\n"
        "finally:\n"
        "    print('deepspeed' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr.split() == ["False"], done.stderr
