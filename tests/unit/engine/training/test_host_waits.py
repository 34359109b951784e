"""Nothing inside a step makes the host wait for the device, but for the places listed here, each
with its reason."""

import pytest
import torch

from data.stream.batches import open_stream
from engine.config.load import load
from engine.distributed import zero
from engine.training.trainer import agreed_dataset, open_run
from tests.commands import TINY
from tests.dist.processes import run_processes
from tests.unit.host_waits import HostWaits

COUNTED = "rows are counted on the host: shapes of the loss depend on the data"
NO_WAIT = "the tensor is on the device already"
LOADED = "as the loader gave it, in the host's memory"
CONSTANT = "a constant is copied to the device"
LARGEST = "the teacher drops no token: its exchange is as large as the fullest expert"
DEEPSPEED = "deepspeed/runtime/zero/stage_1_and_2.py:"

PERMITTED = {
    # meant
    "engine/resilience/guard.py:all_finite": "the vote, before any gradient",
    "engine/training/step.py:_fetch": "the report: one transfer at the end of the step",
    "engine/distributed/zero.py:gradient_norm": "the report: DeepSpeed's number, after the step",
    # no wait on a GPU
    "data/stream/collate.py:apply_colours": LOADED,
    "models/pretraining/losses/image_text.py:check_labels": LOADED,
    f"{DEEPSPEED}_average_expert_grad_norms": NO_WAIT,
    f"{DEEPSPEED}get_grad_norm_direct": NO_WAIT,
    f"{DEEPSPEED}_optimizer_step": "torch's AdamW counts its steps in the host's memory",
    # DeepSpeed's own
    f"{DEEPSPEED}has_overflow": "whether to skip the update; with bf16 alone",
    "deepspeed/runtime/utils.py:is_invalid_grad_norm": "whether to skip the update, once a group",
    "deepspeed/runtime/utils.py:mask_nan_or_inf_with_val_inplace": CONSTANT,
    # shapes that depend on data
    "models/pretraining/losses/multi_granularity.py:_object": COUNTED,
    "models/pretraining/losses/multi_granularity.py:_pixel": COUNTED,
    "models/moe/gate.py:_largest": LARGEST,
}

CASES = {
    "as in the paper": [
        "skysense.model.moe.capacity_factor=1.25",
        "skysense.data.augment.on_device=true",
    ],
    "the rest": [
        "skysense.loss.centring=mean",
        "skysense.loss.koleo=0.1",
        "skysense.recompute=blocks",
        "skysense.model.drop_path=0.3",
    ],
}


def one_step(shards: str, overrides: list[str], device: torch.device, recorder):
    """The second step of a run inside the context ``recorder``: tables that are made once are there
    by then."""
    rank, world, _ = zero.ranks()
    config = load(
        TINY,
        [f"skysense.data.shards={shards}", "skysense.run_dir=/dev/null", *overrides],
        world_size=world,
    )
    run = open_run(config, agreed_dataset(config, device), device)
    stream = open_stream(
        run.dataset,
        run.settings.data,
        seed=0,
        batch_size=config.batch_size,
        steps=range(2),
        rank=rank,
        world_size=world,
    )
    first, second = stream
    run.step(first)
    with recorder:
        report = run.step(second)
    assert report.applied  # otherwise half of the step was not seen
    return recorder


def worker(shards: str) -> dict:
    """Places, operations and how often, by case."""
    device = zero.init_distributed()
    return {
        name: dict(one_step(shards, overrides, device, HostWaits()).found)
        for name, overrides in CASES.items()
    }


def test_nothing_in_a_step_waits_but_what_is_listed(shards):
    found = run_processes(2, "tests.unit.engine.training.test_host_waits:worker", (str(shards),))
    waits = {
        key: count for cases in found for counts in cases.values() for key, count in counts.items()
    }
    new = {key: count for key, count in waits.items() if key[0] not in PERMITTED}
    assert not new, "these make the host wait for the device, mend them"
    for cases in found:
        for counts in cases.values():
            assert [
                count for (place, _), count in counts.items() if place.startswith("engine/")
            ] == [1, 1, 1]
    gone = PERMITTED.keys() - {place for place, _ in waits} - {f"{DEEPSPEED}has_overflow"}
    assert not gone, "these wait no longer, take them off the list"


X = torch.arange(6.0)
KINDS = {
    "a number": (lambda: X.sum().item(), "_local_scalar_dense"),
    "a decision": (lambda: 1 if X.any() else 0, "_local_scalar_dense"),
    "a list": (lambda: X.tolist(), "tolist"),
    "rows by mask": (lambda: X[X > 2], "index"),
    "assigned by mask": (lambda: X.clone().__setitem__(X > 2, X[:3]), "index_put_"),
    "rows by a list": (lambda: X[[0, 1]], "__getitem__"),
    "places": (lambda: (X > 2).nonzero(), "nonzero"),
    "selected": (lambda: X.masked_select(X > 2), "masked_select"),
    "different values": (lambda: X.unique(), "_unique2"),
    "equality": (lambda: torch.equal(X, X), "equal"),
    "repeats": (lambda: X.repeat_interleave(X.long()), "repeat_interleave"),
    "a constant": (lambda: torch.tensor([1.0], device="cpu"), "tensor"),
    "a copy": (lambda: X.to("cpu"), "to"),
    "a copy of some type": (lambda: X.to("cpu", torch.float64), "to"),
    "in the backward pass": (
        lambda: X.clone().requires_grad_()[X > 2].sum().backward(),
        "index_put",
    ),
}
QUIET = (
    lambda: X[2:4],
    lambda: X[torch.tensor([1, 2])],
    lambda: X.where(X > 2, 0.0),
    lambda: X.masked_fill(X > 2, 0),
    lambda: X.to(torch.float64),
    lambda: X.to("cpu", non_blocking=True),
    lambda: X.repeat_interleave(2),
    lambda: X + 1,
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorder_sees_each_kind_of_wait_and_where_it_is(kind):
    call, operation = KINDS[kind]
    with HostWaits() as waits:
        call()
    assert ("tests/unit/engine/training/test_host_waits.py:<lambda>", operation) in waits.found


def test_the_recorder_sees_nothing_where_nobody_waits():
    with HostWaits() as waits:
        for call in QUIET:
            call()
    assert not waits.found
