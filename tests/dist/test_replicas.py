"""Two real ranks of a real run, of which one is changed in one element."""

import pytest
import torch

from engine.config.load import load
from engine.distributed import zero
from engine.errors import ReplicaError
from engine.training.assemble import assemble
from engine.training.inputs import open_dataset
from tests.commands import TINY
from tests.dist.processes import run_processes

CHANGE = 1e-3
SHARD_CHANGE = 0.1  # with bf16 a float32 shard shows what changes the rounded weight
# What is changed on rank 1 -> how the line about it begins.
PLACES = {
    "weight": "the student's text_projection.weight is not what all ranks had",
    "expert": "the student's trunk.backbone.",
    "shard": "its float32 shard of the student's ",
    "teacher": "the teacher's text_projection.weight is not what all ranks had",
    "ema": "its float32 shard of the teacher's ",
    "prototypes": "the buffer student.trunk.context.prototypes is not what rank 0 on ",
    "centre": "the centre of ",
}


def places(step) -> dict[str, torch.Tensor]:
    """What a rank can have wrong, as live tensors of one axis."""
    [expert, *_] = [
        value for name, value in step.student.named_parameters() if "deepspeed_experts" in name
    ]
    [centre, *_] = step.objective.state().values()
    tensors = {
        "weight": step.student.text_projection.weight,
        "expert": expert,
        "shard": zero.partitions(step.engine)[0],
        "teacher": step.teacher.text_projection.weight,
        "ema": step.ema.shards[0],
        "prototypes": step.student.trunk.context.prototypes,
        "centre": centre,
    }
    return {name: tensor.detach().view(-1) for name, tensor in tensors.items()}


def found(step, values=None) -> tuple[int, str] | None:
    """Rank and line of the error of a comparison."""
    try:
        step.compare_ranks(values)
    except ReplicaError as error:
        return error.rank, str(error)
    return None


def worker(shards, precision):
    """Two steps, then every place in turn, each put right again."""
    device = zero.init_distributed()
    rank, world, _ = zero.ranks()
    settings = [f"skysense.data.shards={shards}", "skysense.loss.centring=mean", *precision]
    config = load(TINY, settings, world_size=world)
    run = assemble(config, open_dataset(config.settings), device)
    answers = {}
    answers["new"] = found(run.step)
    for batch in run.batches(2):
        run.step(batch)
        answers[f"step {batch.step}"] = found(run.step)
    for name, tensor in places(run.step).items():
        run.step.ema.wait()
        before = tensor[0].clone()
        if rank == 1:
            tensor[0] += SHARD_CHANGE if name in ("shard", "ema") else CHANGE
        answers[name] = found(run.step)
        tensor[0] = before
    answers["guard"] = found(run.step, {"guard": {"skipped": rank}})
    answers["in order"] = found(run.step, {"guard": {"skipped": 1}})
    return answers


@pytest.mark.parametrize("precision", [[], ["bf16.enabled=true"]])
def test_one_element_of_one_rank(shards, precision):
    first, second = run_processes(2, "tests.dist.test_replicas:worker", [str(shards), precision])
    assert first == second
    for name in ("new", "step 0", "step 1", "in order"):
        assert first[name] is None
    for name, words in PLACES.items():
        rank, line = first[name]
        assert rank == 1 and line.startswith(words), (name, line)
    rank, line = first["guard"]
    assert rank == 1 and line.startswith("guard is not what rank 0 on ")
