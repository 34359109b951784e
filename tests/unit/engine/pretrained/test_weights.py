"""Trained weights on the disk: where they are found, what is refused, and how a run of another
shape takes them."""

from dataclasses import replace

import pytest
import torch

from data.tiles.regions import RegionTable, cell_of
from engine.checkpoint import families
from engine.config.settings import InitSettings, Settings
from engine.pretrained.export import export
from engine.pretrained.weights import load, load_pretraining, regions
from engine.training.first_weights import PROTOTYPES, take_trained
from models.initialise import initialise
from models.pretraining.model import Pretraining
from tests.unit.checkpoints import PLACES, write_checkpoint
from tests.unit.models.pretrained.test_adapt import SPEC


def model(spec=SPEC, seed: int = 0) -> Pretraining:
    """A model with first values of a seed."""
    made = Pretraining(spec)
    initialise(made, seed)
    return made.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with one checkpoint, and the model in it."""
    folder = tmp_path_factory.mktemp("run")
    trained = model()
    write_checkpoint(folder / "checkpoints/step-00000012", trained)
    return folder, trained


def test_run_and_checkpoint_hold_the_same(run):
    folder, trained = run
    for path in (folder, folder / "checkpoints/step-00000012"):
        state = load_pretraining(path).state_dict()
        assert state.keys() == trained.state_dict().keys()
        assert all(torch.equal(x, state[name]) for name, x in trained.state_dict().items())
    table = regions(folder)
    cells = [cell_of(*place) for place in PLACES]
    assert [table.lookup(*place) for place in PLACES] == [
        sorted(cells).index(cell) for cell in cells
    ]


def test_an_export_reads_each_weight_once_and_one_tensor_at_a_time(run, tmp_path, monkeypatch):
    folder, trained = run
    sizes = []
    read_shards = families.read_shards

    def counted(folder, family, moves, shards):
        sizes.append(sum(len(shard) for shard in shards))
        assert sum(move.size for move in moves) == sizes[-1]
        read_shards(folder, family, moves, shards)

    monkeypatch.setattr(families, "read_shards", counted)
    export(folder, tmp_path / "out", heads=True)
    assert sizes == [parameter.numel() for parameter in trained.parameters()]
    state = load_pretraining(tmp_path / "out").state_dict()
    assert all(torch.equal(x, state[name]) for name, x in trained.state_dict().items())


def test_prototypes_stay_float32_in_a_half_precision_model(run):
    loaded = load(run[0], dtype=torch.bfloat16)
    assert loaded.trunk.fusion.token.dtype == torch.bfloat16
    assert torch.equal(loaded.trunk.context.prototypes, run[1].trunk.context.prototypes)


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            lambda folder: (folder / "manifest.json").unlink(),
            "expected a run folder with a complete checkpoint",
        ),
        (
            lambda folder: (folder / "ema/rank-00000.safetensors").write_bytes(b"x"),
            "the checkpoint is damaged",
        ),
        (
            lambda folder: (folder / "state.json").write_text("{}"),
            "state.json: expected .* the checkpoint is damaged",
        ),
        (
            lambda folder: (folder / "manifest.json").write_text('{"format": 2}'),
            "expected format 3, found 2; export its weights",
        ),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused(tmp_path, fault, message):
    folder = write_checkpoint(tmp_path / "checkpoint", model())
    fault(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_other_refusals(run, tmp_path):
    with pytest.raises(ValueError, match="expected 'teacher' or 'student', found 'both'"):
        load(run[0], weights="both")
    with pytest.raises(ValueError, match="found no such folder"):
        load(tmp_path / "nothing")
    without = model()
    del without.trunk.fusion.layers[0].norm1
    folder = write_checkpoint(tmp_path / "checkpoint", without)
    with pytest.raises(
        ValueError, match="2 weights of the model wanted are not there, first fusion.layers.0.norm1"
    ):
        load(folder)
    with pytest.raises(ValueError, match="found 2 missing or unknown"):
        load_pretraining(folder)
    assert load(folder, fusion=False).trunk.fusion is None


def settings(path, spec=SPEC, **init) -> Settings:
    """Settings of a run that starts from given weights."""
    return Settings(model=spec, init=InitSettings(path=str(path), **init))


def test_prototypes_go_by_place(run):
    """Another data set knows one of the three places, and one more that was not trained."""
    folder, trained = run
    table = RegionTable.from_points([PLACES[2], (-60.0, -3.0)])
    other = model(seed=5)
    drawn = other.trunk.context.prototypes.clone()
    lines = take_trained(settings(folder), other, table)
    old = regions(folder).lookup(*PLACES[2])
    new = table.lookup(*PLACES[2])
    prototypes = other.trunk.context.prototypes
    assert torch.equal(prototypes[new], trained.trunk.context.prototypes[old])
    assert torch.equal(prototypes[1 - new], drawn[1 - new])
    assert torch.equal(prototypes[2], drawn[2])
    assert any("prototypes of 1 of 2 regions were trained there" in line for line in lines)
    for name, x in other.state_dict().items():
        assert name == PROTOTYPES or torch.equal(x, trained.state_dict()[name]), name


def test_a_model_of_another_shape_takes_what_fits_and_says_the_rest(run):
    folder, trained = run
    spec = SPEC.variant(queries=5, head=replace(SPEC.head, prototypes=32), moe=None)
    other = model(spec, seed=5)
    first = {name: x.clone() for name, x in other.state_dict().items()}
    lines = take_trained(settings(folder, spec, expert=2), other, RegionTable.from_points(PLACES))
    state = other.state_dict()
    for name in ("decoder.queries", "heads.hr.image.last.weight", "query_head.last.weight"):
        assert torch.equal(state[name], first[name])
    experts = "trunk.backbone.stages.3.blocks.0.ffn.layer.deepspeed_moe.experts.deepspeed_experts.2"
    assert torch.equal(
        state["trunk.backbone.stages.3.blocks.0.ffn.fc2.weight"],
        trained.state_dict()[f"{experts}.fc2.weight"],
    )
    said = "\n".join(lines)
    assert "without a trained value: decoder (1 tensors)" in said and "heads.hr (2 tensors)" in said
    assert "backbone.stages.3.blocks.0.ffn: expert 2 of 4 as a plain network" in said
