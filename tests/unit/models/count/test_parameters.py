"""Counts of every module against formulas and the paper, and the command that prints them."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from engine.config.load import load
from engine.cost.parameter_figure import COLOURS
from engine.cost.parameter_rows import Row
from engine.cost.parameter_text import model_text
from models.count.parameters import MODULES, count, place
from models.spec import ModelSpec
from models.variants import VARIANTS, named
from tests.commands import TINY, skysense
from tests.environment import environment
from tests.paths import ROOT


def linear(rows: int, columns: int) -> int:
    return rows * columns + columns


def network(width: int, hidden: int) -> int:
    return linear(width, hidden) + linear(hidden, width)


def backbone_formulas(spec: ModelSpec) -> dict[tuple[str, str], int]:
    """Tokenizers, stages and prompts by their formulas, zero where the model has none."""
    d, names, moe = spec.widths, tuple(spec.modalities), spec.moe
    found = {
        ("tokenizers", name): linear(16 * bands, d[0]) for name, bands in zip(names, (3, 10, 2))
    }
    first = 0
    for stage, (width, depth) in enumerate(zip(d, spec.depths)):
        mixtures = (
            len([block for block in moe.blocks if first <= block < first + depth]) if moe else 0
        )
        experts = moe.experts if moe else 0
        first += depth
        hidden, heads = spec.mlp_ratio * width, width // 32
        if (
            stage < 2
        ):  # q and v have biases; a temperature a head; bias network 2 -> 512 -> heads; two norms
            attention = (
                3 * width**2
                + 2 * width
                + linear(width, width)
                + heads
                + linear(2, 512)
                + 512 * heads
            )
            tables = 0
        else:
            attention = 4 * linear(width, width)
            hr, sentinel = ((14, 16), (7, 16))[stage - 2]
            tables = (hr**2 + sentinel**2) * width
            found["prompts", f"stage {stage + 1}"] = 3 * 4 * width + linear(width, width)
        found["backbone", f"stage {stage + 1}"] = (
            depth * (attention + 4 * width) + (depth - mixtures) * network(width, hidden) + tables
        )
        found["backbone", f"stage {stage + 1} gates"] = mixtures * experts * width
        found["backbone", f"stage {stage + 1} experts"] = (
            mixtures * experts * network(width, hidden)
        )
        if stage < 3:
            found["backbone", f"merging {stage + 1}"] = (
                8 * width**2 + linear(width, 2 * width) + 2 * 2 * width
            )
    found["backbone", "last norm"] = 2 * d[3]
    return found


def formulas(spec: ModelSpec) -> dict[tuple[str, str], int]:
    """Every part by its formula, zero where the model has none."""
    found = backbone_formulas(spec)
    last = spec.widths[3]
    names = tuple(spec.modalities)
    w, context = spec.fusion.width, spec.context.width
    found |= {("fusion", f"projection {name}"): linear(last, w) for name in names}
    found |= {
        ("fusion", "day table"): 365 * w,
        ("fusion", "token and norm"): 3 * w,
        ("fusion", "layers"): spec.fusion.layers * (12 * w**2 + 13 * w),
    }

    def head(width: int) -> int:
        h, bottleneck = spec.head.hidden, spec.head.bottleneck
        return (
            linear(width, h)
            + linear(h, h)
            + linear(h, bottleneck)
            + bottleneck * spec.head.prototypes
        )

    for level in ("image", "dense"):
        found |= {("others", f"head {name} {level}"): head(last) for name in names}
        found["others", f"head fused {level}"] = head(w + context)
    found |= {
        ("others", "geo-context prototypes"): spec.context.regions
        * spec.context.prototypes
        * context,
        ("others", "geo-context projection"): linear(w, context),
        ("others", "head queries"): head(w),
        ("others", "query decoder"): spec.queries * w
        + 6 * linear(w, w)
        + 2 * linear(w + context, w)
        + network(w, 4 * w)
        + 4 * 2 * w,
        ("others", "text projection"): linear(w + context, spec.text_width),
    }
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_equals_its_formula(name):
    spec = named(name)
    counts = count(spec)
    expected = {part: size for part, size in formulas(spec).items() if size}
    assert {(found.module, found.part): found.parameters for found in counts} == expected
    assert len(counts) == len(expected) and list(
        dict.fromkeys(found.module for found in counts)
    ) == list(MODULES)
    experts = spec.moe.experts if spec.moe else 1
    for found in counts:
        assert (
            found.activated * (experts if found.part.endswith("experts") else 1) == found.parameters
        )


def millions(name: str, *modules: str) -> float:
    return sum(found.parameters for found in count(named(name)) if found.module in modules) / 1e6


def test_sizes_of_our_own_models():
    assert 250 < millions("base", *MODULES) < 350
    assert 40 < millions("small", *MODULES) < 70


def test_the_reasons_explain_the_papers_rows():
    """Gates of 8 in every row; and equal blocks of width 1408 that keep their network."""
    eight = millions("skysense_v2", "backbone")
    gate, block = (4 * 1408 + 2 * 2816) / 1e6, 8 * network(1408, 4 * 1408) / 1e6
    assert millions("experts_4", "backbone") + 4 * gate == pytest.approx(1232.61, abs=0.006)
    assert millions("experts_16", "backbone") - 8 * gate == pytest.approx(3517.08, abs=0.006)
    for blocks, paper in ((2, 1486.37), (4, 1740.23), (8, 2247.97)):
        assert eight + (blocks - 6) * block == pytest.approx(paper, abs=0.006)


def test_a_parameter_without_a_place_is_an_error():
    with pytest.raises(ValueError, match="trunk.novelty.weight"):
        place("trunk.novelty.weight")


# ------------------------------------------------------------------------------------ the command


def params(*arguments) -> subprocess.CompletedProcess:
    return skysense("params", *arguments)


@cache
def answer(*arguments) -> dict:
    """The JSON object; the same arguments run once."""
    done = params(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Millions of PAPER table 6 and tables 11-13: paper's, value to reach, tolerance.
NUMBERS = {
    "tokenizers": (0.09, 0.0855, 0.00005),
    "tokenizer hr": (0.02, 0.017248, 0),
    "tokenizer ms": (0.06, 0.056672, 0),
    "tokenizer sar": (0.01, 0.011616, 0),
    "backbone without experts": (661.40, 661.40, 0.01),
    "backbone, 8 experts": (1994.10, 1994.10, 0.01),
    "backbone, activated": (661, 661, 0.5),
    "backbone, 4 experts": (1232.61, 1232.56, 0.01),
    "backbone, 16 experts": (3517.08, 3517.17, 0.01),
    "backbone, experts in last 2": (1486.37, 1549.79, 0.01),
    "backbone, experts in last 4": (1740.23, 1771.94, 0.01),
    "backbone, experts in last 8": (2247.97, 2216.26, 0.01),
    "backbone, experts spread": (None, 1577.69, 0.01),
    "prompts": (9.94, 9.945, 0.025),
    "fusion, layers and a projection": (None, 305.2, 0.05),
    "fusion": (347.01, None, None),
    "geo-context prototypes": (None, 209.7, 0.05),
    "others": (490.49, None, None),
    "total without experts": (1508.93, None, None),
    "total": (2841.63, None, None),
}


def test_the_papers_counts_are_reached():
    found = answer()
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) and rows.keys() == NUMBERS.keys()
    for name, numbers in NUMBERS.items():
        row = rows[name]
        assert type(row["ours"]) is int
        for key, value in zip(("paper", "correct", "tolerance"), numbers):
            assert row[key] == (None if value is None else pytest.approx(value * 1e6, abs=0.5)), (
                name,
                key,
            )
        if row["correct"] is None:
            assert row["within"] is None and row["reason"]
        else:
            assert (
                row["within"] is True and abs(row["ours"] - row["correct"]) <= row["tolerance"]
            ), name
        if row["paper"] is not None and abs(row["ours"] - row["paper"]) > 10_000:
            assert row["reason"], name
    expected = formulas(named("skysense_v2"))
    assert (
        rows["total"]["ours"] == sum(expected.values()) == found["variants"]["skysense_v2"]["total"]
    )
    assert rows["fusion"]["ours"] == sum(
        size for (module, _), size in expected.items() if module == "fusion"
    )
    assert found["variants"].keys() == VARIANTS.keys()


def test_tables_say_the_same_as_json():
    done, found = params(), answer()
    assert done.returncode == 0, done.stderr
    for row in found["rows"]:
        line = next(
            line for line in done.stdout.splitlines() if line.startswith(f"{row['name']}  ")
        )
        words = line[len(row["name"]) :].split()
        assert words[0] == f"{row['ours'] / 1e6:,.4f}"
        assert words[1] == ("-" if row["paper"] is None else f"{row['paper'] / 1e6:.2f}")
        assert ("ok" in words) == (row["within"] is True) and "OUTSIDE" not in words
    for name, sizes in found["variants"].items():
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
        assert line.split()[1:8] == [
            f"{sizes[key] / 1e6:,.4f}" for key in (*MODULES, "total", "activated")
        ]
        assert line.endswith(VARIANTS[name].about)


def test_one_model_part_by_part():
    found = answer("--spec", "dense")
    rows = {row["name"]: row for row in found["rows"]}
    for (module, part), size in formulas(named("dense")).items():
        assert not size or rows[f"{module} {part}"]["ours"] == size
    assert rows["backbone"]["paper"] == 661_400_000 and rows["backbone"]["within"] is True
    assert rows["fusion"]["paper"] == 347_010_000 and rows["total"]["paper"] == 1_508_930_000
    assert (
        rows["total"]["ours"]
        == rows["total"]["activated"]
        == sum(rows[module]["ours"] for module in MODULES)
    )


def test_a_model_that_is_the_papers_is_compared_wherever_it_comes_from():
    rows = answer("--spec", "skysense_v2")["rows"]
    assert answer("--config", ROOT / "ds_configs" / "paper_128gpu.json")["rows"] == rows
    backbone = next(row for row in rows if row["name"] == "backbone")
    assert backbone["paper"] == 1_994_100_000 and backbone["activated"] == pytest.approx(
        661.49e6, abs=1e4
    )


def test_a_file_with_overrides_and_its_picture(tmp_path):
    arguments = ("--config", TINY, "--set", "skysense.model.queries=5")
    found = answer(*arguments, "--plot", tmp_path / "model.png")
    spec = replace(load(TINY).settings.model, queries=5)
    assert found["rows"][-1]["ours"] == sum(part.parameters for part in count(spec))
    assert all(row["paper"] is row["within"] is None for row in found["rows"])
    check_picture(tmp_path / "model.png")


def test_the_picture_of_all_variants(tmp_path):
    assert params("--plot", tmp_path / "variants.png").returncode == 0
    check_picture(tmp_path / "variants.png")


def check_picture(path) -> None:
    """Every family is drawn."""
    image = matplotlib.image.imread(path)[..., :3]
    for name, shade in COLOURS.items():
        near = np.abs(image - np.array(matplotlib.colors.to_rgb(shade))).max(-1) < 0.01
        assert near.sum() > 50, name


def test_the_printed_specification_can_stand_in_a_configuration(tmp_path):
    model = answer("--spec", "small")["specification"]
    assert model == json.loads(json.dumps(asdict(named("small"))))
    content = {"skysense": {"base": str(ROOT / "ds_configs" / "one_gpu.json"), "model": model}}
    (tmp_path / "small.json").write_text(json.dumps(content))
    assert load(tmp_path / "small.json").settings.model == named("small")


def test_a_count_outside_its_tolerance_says_so():
    rows = [
        Row("near", 1_000_100, 1_000_100, 1_000_000, 1_000_000, 100),
        Row("far", 1_000_101, 1_000_101, 1_000_000, 1_000_000, 100),
        Row("unknown", 5, 5),
    ]
    assert [row.within for row in rows] == [True, False, None]
    lines = model_text("x", None, rows).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("OUTSIDE")] == ["far"]
    assert [line.split()[0] for line in lines if line.endswith("ok")] == ["near"]


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--spec", "experts_12"], "there is no variant 'experts_12'; did you mean 'experts_16'?"),
        (
            ["--spec", "dense", "--config", TINY],
            "expected --spec or --config or neither, found both",
        ),
        (
            ["--spec", "dense", "--set", "skysense.seed=1"],
            "expected a configuration to change, found no --config",
        ),
        (["--config", "nowhere.json"], "nowhere.json: there is no such configuration file"),
        (["--config", TINY, "--set", "skysense.model.quries=1"], 'did you mean "queries"'),
        (["--plot", "params.jpg"], "expected a name ending in .png, .svg, .pdf"),
    ],
)
def test_wrong_arguments_get_one_line(arguments, complaint):
    done = params(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert complaint in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_command_needs_no_deepspeed():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['skysense', 'params', '--json']\n"
        "try:\n"
        "    runpy.run_module('launch', run_name='__main__')\n"
        "finally:\n"
        "    print('deepspeed' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr.split() == ["False"], done.stderr
