"""What is exported and loaded again has the bits of the teacher, and of the student, that the ranks
held."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from data.tiles.regions import RegionTable
from engine.config.load import load as load_config
from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer
from engine.distributed.flat_copy import FlatCopy
from engine.pretrained.export import export
from engine.pretrained.weights import load, load_pretraining
from engine.training.assemble import start_engine
from engine.training.models import build_pair
from models.moe.layer import canonical_names
from tests.commands import TINY
from tests.dist.processes import run_processes
from tests.dist.small import publish

# ranks, ep_size, bf16
CASES = [(1, 1, False), (2, 1, False), (2, 2, False), (2, 2, True), (4, 2, True)]


def worker(folder, ep_size, bf16):
    """Move the student by noise instead of losses, average, save; all weights of this rank under
    global names."""
    zero.init_distributed()
    overrides = [
        "skysense.data.shards=unused",
        f"skysense.ep_size={ep_size}",
        f"bf16.enabled={json.dumps(bf16)}",
    ]
    rank, world_size, _ = zero.ranks()
    config = load_config(TINY, overrides, world_size=world_size)
    pair = build_pair(config.settings, DistributedReducer())
    ema = start_engine(config, pair, torch.device("cpu"))
    engine = ema.engine
    for momentum in (0.9, 0.99):
        noise = torch.Generator().manual_seed(rank)
        for shard in zero.partitions(engine):
            shard.add_(torch.randn(shard.shape, generator=noise), alpha=0.01)
        ema.update(momentum)
    pair.student.trunk.context.prototypes.add_(0.5)
    regions = RegionTable((1, 2)).to_json()
    publish(folder, 2, engine, ema, model=asdict(pair.student.spec), regions=regions)
    whole = {
        "teacher": gathered(engine, ema.shards),
        "student": gathered(engine, zero.partitions(engine)),
    }
    names = canonical_names(ema.module)
    shown = {names.get(name, name): x.clone() for name, x in ema.module.state_dict().items()}
    return whole, shown


def gathered(engine, shards):
    """Shards put together by the engine's own exchange into float32 parameters, by global name."""
    target = nn.Module()
    local = {}
    for name, parameter in engine.module.named_parameters():
        local[name] = nn.Parameter(torch.empty(parameter.shape))
    target.named_parameters = lambda: iter(local.items())
    FlatCopy(engine, target).fill(shards)
    names = canonical_names(engine.module)
    return {names[name]: p.detach() for name, p in local.items()}


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0]} ranks, ep {case[1]}, bf16 {case[2]}"
)
def saved(request, tmp_path_factory):
    """Run folder, and what all ranks held: float32 weights by kind, and what the teacher's module
    showed."""
    world, ep_size, bf16 = request.param
    folder = tmp_path_factory.mktemp("run")
    ranks = run_processes(world, "tests.dist.test_export:worker", [str(folder), ep_size, bf16])
    whole = {"teacher": {}, "student": {}}
    shown = {}
    for whole_of_rank, shown_of_rank in ranks:
        for kind, weights in whole_of_rank.items():
            whole[kind] |= weights
        shown |= shown_of_rank
    return folder, whole, shown


@pytest.mark.parametrize("weights", ["teacher", "student"])
def test_export_and_load_keep_every_bit(saved, tmp_path, weights):
    folder, whole, shown = saved
    export(folder, tmp_path / "out", weights)
    model = load(tmp_path / "out", weights)
    parameters = dict(model.trunk.named_parameters())
    trunk = {name for name in whole[weights] if name.startswith("trunk.")}
    assert {f"trunk.{name}" for name in parameters} == trunk
    for name, x in parameters.items():
        assert torch.equal(x, whole[weights][f"trunk.{name}"]), name
    assert torch.equal(model.trunk.context.prototypes, shown["trunk.context.prototypes"])


def test_the_teacher_in_the_type_of_training_is_the_one_that_made_the_targets(saved, tmp_path):
    folder, _, shown = saved
    dtype = str(shown["trunk.fusion.token"].dtype).removeprefix("torch.")
    export(folder, tmp_path / "out", dtype=dtype, heads=True)
    state = load_pretraining(tmp_path / "out").state_dict()
    assert state.keys() == shown.keys()
    for name, x in state.items():
        assert x.dtype == shown[name].dtype and torch.equal(x, shown[name]), name


def test_all_folders_of_a_run_mean_the_same(saved, tmp_path):
    folder, whole, _ = saved
    export(folder / "checkpoints" / "step-00000002", tmp_path / "first")
    export(tmp_path / "first", tmp_path / "second")
    modes = {file.stat().st_mode for file in (tmp_path / "first").iterdir()}
    assert len(modes) == 1  # the weights are no more private than the description
    for path in (folder, tmp_path / "second"):
        found = load(path).trunk.state_dict()
        assert all(
            torch.equal(found[name.removeprefix("trunk.")], x)
            for name, x in whole["teacher"].items()
            if name.startswith("trunk.")
        )
