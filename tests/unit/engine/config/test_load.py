"""Reading a configuration: which files are right, and what is refused in which words."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import get_args, get_type_hints

import pytest

from engine.config.load import load
from engine.config.settings import OptimizerSettings, Settings
from engine.config.typed import parse
from engine.errors import ConfigError
from models.recompute import POLICIES
from models.spec import ModelSpec
from tests.paths import CONFIGS, ROOT
from tests.unit.engine.config.files import DEMO


def refusal(override: str, world_size: int = 2) -> str:
    """The one line that a wrong override of the demo is refused with."""
    with pytest.raises(ConfigError) as caught:
        load(DEMO, [override], world_size=world_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name, world_size",
    [
        ("demo_cpu", 2),
        ("demo_cpu", 4),
        ("demo_one_process", 1),
        ("cpu_20_steps", 2),
        ("paper_128gpu", 128),
        ("eight_gpus", 8),
        ("eight_gpus_80gb", 8),
        ("one_gpu", 1),
        ("base_one_gpu", 1),
        ("small_one_gpu", 1),
    ],
)
def test_shipped_files_are_right(name, world_size):
    config = load(CONFIGS / f"{name}.json", world_size=world_size)
    assert "skysense" not in config.deepspeed
    assert config.deepspeed["train_micro_batch_size_per_gpu"] * world_size == config.batch_size
    assert config.settings.description  # says what the file is for and how many ranks it takes


def test_the_full_presets_are_the_papers_model():
    """But for the prototypes of the heads, which a few GPUs have too few rows for."""
    paper = ModelSpec.skysense_v2()
    assert load(CONFIGS / "paper_128gpu.json").settings.model == paper
    for name, prototypes in {"one_gpu": 512, "eight_gpus": 4096, "eight_gpus_80gb": 4096}.items():
        head = replace(paper.head, prototypes=prototypes)
        assert load(CONFIGS / f"{name}.json").settings.model == paper.variant(head=head)


def test_demo_switches_every_mechanism_on():
    settings = load(DEMO, world_size=2).settings
    assert settings.ep_size == 2
    assert settings.model.moe.experts == 8
    assert settings.model.context is not None
    loss = settings.loss
    assert min(loss.mgcl, loss.qsacl, loss.ita, loss.moe_balance) > 0


WRONG = [
    ("gradient_cliping=3.0", 'unknown key "gradient_cliping"', 'did you mean "gradient_clipping"?'),
    ("zero_optimization.stge=2", 'unknown key "zero_optimization.stge"', 'did you mean "stage"?'),
    ("bf16.enable=true", 'unknown key "bf16.enable"', 'did you mean "enabled"?'),
    (
        "optimizer.params.weigth_decay=0",
        'unknown key "optimizer.params.weigth_decay"',
        'did you mean "weight_decay"?',
    ),
    ("skysens.seed=1", 'unknown key "skysens"', 'did you mean "skysense"?'),
    ("skysense.schedule.step=1", 'unknown key "skysense.schedule.step"', 'did you mean "steps"?'),
    ("skysense.model.modalities.ms.frame=1", 'did you mean "frames"?'),
    ('skysense.schedule.steps="12"', 'expected int, found str "12" at skysense.schedule.steps'),
    ("skysense.schedule.steps=1.5", "expected int, found float 1.5 at skysense.schedule.steps"),
    ("skysense.loss.mgcl=NaN", "expected a finite number, found float NaN at skysense.loss.mgcl"),
    ("skysense.seed=true", "expected int, found bool true at skysense.seed"),
    ("skysense.run_dir=7", "expected str, found int 7 at skysense.run_dir"),
    ("skysense.data=[]", "expected object, found list at skysense.data"),
    ("skysense.data.frames.ms=many", 'expected int, found str "many" at skysense.data.frames.ms'),
    ("skysense.data.views.aspect=[1]", "expected 2 entries, found 1 at skysense.data.views.aspect"),
    (
        "skysense.data.views.aspect=[1, 2, 3]",
        "expected 2 entries, found 3 at skysense.data.views.aspect",
    ),
    (
        'skysense.model.modalities.hsi={"bands": 9}',
        "expected skysense.model.modalities.hsi.frames, found nothing; "
        "every skysense.model.modalities.hsi needs it",
    ),
    (
        "skysense.activation_checkpointing=true",
        'it is now skysense.recompute: write "blocks" instead of true',
    ),
    ("skysense.recompute=all", "expected 'none', 'blocks', 'windows' or 'pointwise', found 'all'"),
    ("activation_checkpointing={}", "activation_checkpointing: set skysense.recompute instead"),
    ("train_batch_size=4.0", "expected int, found float 4.0 at train_batch_size"),
    ("bf16.enabled=yes", 'expected bool, found str "yes" at bf16.enabled'),
    ("zero_optimization=2", "expected object, found int 2 at zero_optimization"),
    ("fp16.enabled=true", "only bf16 or fp32"),
    ("scheduler.type=WarmupLR", "set skysense.schedule instead"),
    ("optimizer.params.max_grad_norm=1", "gradient_clipping"),
    ("optimizer.type=Lion", 'expected "AdamW"', "Lion"),
    ("optimizer.params.lr=0", "optimizer.params.lr: expected a positive number"),
    ("optimizer.params.betas=[0.9]", "expected 2 entries, found 1 at optimizer.params.betas"),
    (
        "optimizer.params.betas=[0.9, 1]",
        "optimizer.params.betas.1: expected a number below 1, found 1",
    ),
    ("optimizer.params.lr=null", "expected float, found null at optimizer.params.lr"),
    ("optimizer.params={}", "expected optimizer.params.lr, found nothing"),
    ("bf16.check_grad_overflow=false", "a NaN reaches the weights"),
    ("zero_optimization.stage=3", "zero_optimization.stage: expected 2", "found 3"),
    ("zero_optimization.stage3_max_live_parameters=1", "ZeRO stage 3"),
    ("zero_optimization.reduce_scatter=false", "expected true because the model has experts"),
    (
        "gradient_accumulation_steps=2",
        "expected 1 because batch statistics are over one call, found 2",
    ),
    ("train_batch_size=5", "expected a multiple of the 2 ranks", "the nearest are 4 and 6"),
    ("train_batch_size=0", "train_batch_size: expected the samples of a step"),
    ("train_micro_batch_size_per_gpu=4", "expected 2 (train_batch_size 4 over 2 ranks), found 4"),
    ("skysense.ep_size=3", "skysense.ep_size: expected a divisor of the 8 experts, found 3"),
    (
        "skysense.ep_size=4",
        "skysense.ep_size: expected a divisor of the 2 ranks of this run, found 4",
        "start 4 ranks (deepspeed --num_gpus 4)",
    ),
    ("skysense.model.moe=null", "expected 1 because the model has no experts, found 2"),
    (
        "skysense.data.frames.ms=5",
        "skysense.data.frames: expected the frames of skysense.model.modalities",
    ),
    ("skysense.model.modalities.sar=null", "skysense.data.frames"),
    ("skysense.model.modalities.ms.bands=4", "modalities.ms.bands: expected 10", "found 4"),
    (
        'skysense.model.modalities.hsi={"bands":9,"frames":1,"merge":[false,false,false],'
        '"position_grids":[2,2]}',
        "modalities.hsi: the program has no such sensor, and the dataset, which may describe it",
    ),
    (
        "skysense.data.views.local_pixels.ms=6",
        "data.views.local_pixels.ms: expected a multiple of 4 (patches of 4 pixels, 0 merges), "
        "found 6; the nearest are 4 and 8",
    ),
    (
        "skysense.model.widths=[32, 64, 96, 256]",
        "model.widths: expected each stage to be twice as wide",
        "found 64 and then 96; write 128",
    ),
    (
        "skysense.data.views.global_pixels.hr=200",
        "data.views.global_pixels.hr: expected a multiple of 32 (patches of 4 pixels, 3 merges), "
        "found 200; the nearest are 192 and 224",
    ),
    ("skysense.data.views.local_pixels.sar=0", "local_pixels.sar: expected at least 1 pixel"),
    ("skysense.data.views.local_pixels.sra=8", "no known sensor, expected some of ['hr', "),
    (
        "skysense.data.views.local_pixels.hr=null",
        "skysense.data.views.local_pixels.hr: expected the pixels along a side of a local view of",
    ),
    ("skysense.model.patch=8", "views.global_pixels.ms: expected a multiple of 8"),
    (
        "skysense.model.fusion.cells_per_token=0",
        "skysense.model.fusion.cells_per_token: expected 1 or more",
    ),
    (
        "skysense.data.views.global_cells=16",
        "skysense.data.views.global_cells: it is now skysense.data.views.global_pixels",
    ),
    (
        "skysense.data.views.local_cells=4",
        "skysense.data.views.local_cells: it is now skysense.data.views.local_pixels",
    ),
    (
        "skysense.model.fusion.cell_metres=20",
        "skysense.model.fusion.cell_metres: it is now skysense.model.fusion.cells_per_token",
    ),
    (
        "skysense.model.modalities.ms.pixels_per_cell=1",
        "skysense.model.modalities.ms.pixels_per_cell: the model knows no metres",
    ),
    (
        "skysense.schedule.warmup=60",
        "skysense.schedule.warmup: expected 0 <= warmup < steps (60), found 60",
    ),
    ("skysense.loss.centring=mode", "skysense.loss.centring", "'sinkhorn' or 'mean'", "'mode'"),
    (
        "skysense.loss.student_temperature=0",
        "skysense.loss.student_temperature: expected a positive number",
    ),
    ("skysense.checkpoint.every=0", "skysense.checkpoint.every: expected at least 1, found 0"),
    (
        "skysense.data.store.attempts=0",
        "skysense.data.store.attempts: expected at least 1, found 0",
    ),
    (
        'skysense.data.mixture={"a": 1.0}',
        "skysense.data.mixture: expected data.shards or data.mixture, found both",
    ),
    (
        "skysense.data.augment.blur_sigma=[0, 2]",
        "skysense.data.augment.blur_sigma: expected 0 < low <= high",
        "[0.0, 2.0]",
    ),
    (
        "skysense.data.shards=",
        "skysense.data.shards: expected the folder or URL of a sharded dataset, found nothing",
    ),
    ("skysense.seed.x=1", "skysense.seed"),
    ("skysense.schedule", "expected place=value"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case[0].partition("=")[0])
def test_what_is_wrong_is_said_in_one_line(case):
    override, *words = case
    message = refusal(override)
    for part in words:
        assert part in message


def test_a_number_can_be_written_whole_where_a_fraction_is_expected():
    assert (
        load(DEMO, ["skysense.loss.mgcl=2", "gradient_clipping=1"], world_size=2).settings.loss.mgcl
        == 2.0
    )


def test_one_process_is_told_what_to_start():
    message = refusal("skysense.ep_size=2", world_size=1)
    assert "expected a divisor of the 1 rank of this run, found 2; start 2 ranks" in message


def test_the_optimizer_is_typed():
    optimizer = load(DEMO, ["optimizer.params.weight_decay=0"]).optimizer
    assert optimizer == OptimizerSettings(lr=0.0005, weight_decay=0.0, torch_adam=True)


def test_gradients_are_summed_in_float32_unless_the_file_says_otherwise():
    assert "communication_data_type" not in json.loads(DEMO.read_text())
    assert load(DEMO, ["bf16.enabled=true"]).deepspeed["communication_data_type"] == "fp32"
    for value, expected in (("bf16", "bf16"), ("null", None)):
        config = load(DEMO, [f"communication_data_type={value}"])
        assert config.deepspeed["communication_data_type"] == expected


def test_the_policies_of_recomputation_are_those_of_the_model():
    hint = get_type_hints(Settings)["recompute"]
    assert get_args(hint) == POLICIES


def test_rules_that_need_the_world_are_left_out_without_it():
    assert load(DEMO, ["train_batch_size=5"]).deepspeed["train_batch_size"] == 5


def test_null_takes_a_modality_away_everywhere():
    config = load(
        DEMO, ["skysense.model.modalities.sar=null", "skysense.data.frames.sar=null"], world_size=2
    )
    assert (
        list(config.settings.model.modalities) == list(config.settings.data.frames) == ["hr", "ms"]
    )


def test_settings_survive_json():
    settings = load(
        DEMO, ["skysense.model.modalities.sar=null", "skysense.data.frames.sar=null"], world_size=2
    ).settings
    assert parse(Settings, json.loads(json.dumps(asdict(settings))), "skysense") == settings


def test_reading_a_configuration_does_not_import_deepspeed():
    code = "import sys, engine.config.load; sys.exit('deepspeed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
