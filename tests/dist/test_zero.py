"""ZeRO-2 with experts against plain PyTorch in one process: gradient norm, clipping, schedule,
groups."""

import math
import os
from pathlib import Path

import deepspeed
import pytest
import torch
import torch.distributed as dist
from torch import nn

from engine.distributed import zero
from engine.distributed.flat_copy import FlatCopy
from models.moe.layer import canonical_names
from models.reducer import Reducer
from tests.dist.processes import run_processes
from tests.dist.small import Small, batch, parameter_groups, start, train_step

STEPS = 3


def worker(cases):
    """For each case: gradient norms, clipped first moments and weights by canonical name."""
    zero.init_distributed()
    results = {"skipped": [skip(bf16) for bf16 in (False, True)]}
    for case, (ep_size, keys) in cases.items():
        engine = start(ep_size, **keys)
        norms = []
        first = None
        for step in range(STEPS):
            norms.append(train_step(engine, step))
            if first is None:
                copy = Small(ep_size, Reducer())
                FlatCopy(engine, copy).fill(zero.moments(engine, "exp_avg"))
                first = named(copy)
        results[case] = {"norms": norms, "moments": first, "weights": named(engine.module)}
    return results


def skip(bf16):
    """A gradient that is not finite on one rank: whether a step was made, whether weights stood,
    and the norm."""
    engine = start(2, bf16=bf16)
    train_step(engine, 0)
    before = [shard.clone() for shard in zero.partitions(engine)]
    rank, world, _ = zero.ranks()
    factor = 1.0
    if rank == 1:
        factor = math.nan
    engine.backward(engine(*batch(1, rank, world)) * factor)
    engine.step()
    same = all(torch.equal(x, y) for x, y in zip(before, zero.partitions(engine), strict=True))
    found = zero.was_applied(engine), same, zero.gradient_norm(engine)
    train_step(engine, 2)
    return found


def named(model):
    """Copies of all parameters by canonical name."""
    names = canonical_names(model)
    return {names[name]: p.detach().float().clone() for name, p in model.named_parameters()}


def plain(clip):
    """The same training in one process by torch alone."""
    model = Small(None, Reducer())
    groups = parameter_groups(model)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    norms = []
    first = None
    for step in range(STEPS):
        for group in groups:
            group["lr"] = 1e-2
            if group["last_layer"] and step == 0:
                group["lr"] = 0.0
        optimizer.zero_grad()
        model(*batch(step, 0, 1)).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), clip)))
        optimizer.step()
        if first is None:
            first = {}
            for name, parameter in model.named_parameters():
                first[name] = optimizer.state[parameter]["exp_avg"].clone()
    return norms, first, named(model)


CASES = {
    2: {
        "ep 1": (1, {}),
        "ep 2": (2, {}),
        "round robin": (2, {"round_robin_gradients": True}),
        "bf16 ep 1": (1, {"bf16": True}),
        "bf16 ep 2": (2, {"bf16": True}),
    },
    4: {
        "ep 2": (2, {}),
        "ep 4": (4, {}),
        "sent to their owners alone": (2, {"use_multi_rank_bucket_allreduce": False}),
    },
}


@pytest.mark.parametrize("world", CASES)
def test_norm_clipping_and_skipping_do_not_depend_on_the_split(world):
    norms, moments, weights = plain(1.0)
    assert min(norms) > 1.5  # every step is clipped
    ranks = run_processes(world, "tests.dist.test_zero:worker", [CASES[world]])
    for rank in ranks:  # a NaN on one rank skips the step on all
        assert rank["skipped"] == [(False, True, float("inf"))] * 2
    for case in CASES[world]:
        results = [rank[case] for rank in ranks]
        # to the bit, on all ranks
        assert all(result["norms"] == results[0]["norms"] for result in results)
        # 8 bits of mantissa: the norm's scale is what a wrong factor would change
        if "bf16" in case:
            torch.testing.assert_close(results[0]["norms"], norms, rtol=0.05, atol=0)
            continue
        torch.testing.assert_close(results[0]["norms"], norms, rtol=1e-5, atol=0)
        for key, expected in (("moments", moments), ("weights", weights)):
            merged = {}
            for result in results:
                merged |= result[key]
            assert merged.keys() == expected.keys()
            for name, value in merged.items():
                place = f"{case} {name}"
                torch.testing.assert_close(
                    value,
                    expected[name],
                    rtol=2e-4,
                    atol=2e-5,
                    msg=lambda m, place=place: f"{place}: {m}",
                )


def test_groups_separate_decay_last_layer_and_bounded_size(monkeypatch):
    model = Small(None, Reducer())
    names = {id(p): name for name, p in model.named_parameters()}
    monkeypatch.setattr(zero, "GROUP_LIMIT", 300)
    groups = parameter_groups(model)
    assert len({group["name"] for group in groups}) == len(groups)
    found = {}
    for group in groups:
        sizes = [p.numel() for p in group["params"]]
        assert sum(sizes) <= 300 or len(sizes) == 1
        assert group["weight_decay"] == (0.1 if group["decay"] else 0.0)
        for p in group["params"]:
            assert names[id(p)] not in found
            found[names[id(p)]] = (group["decay"], group["last_layer"])
    assert found.keys() == set(names.values())
    for name, (decay, last) in found.items():
        assert decay == (not name.endswith("bias") and name not in ("norm.weight", "token"))
        assert last == (name == "last_layer.weight")


def test_another_release_of_deepspeed_is_refused():
    zero.require_version(zero.VERSION)
    with pytest.raises(ValueError, match="expected version 0.19.8, found 0.20.0"):
        zero.require_version("0.20.0")


def test_missing_environment_is_one_line(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="expected .*WORLD_SIZE"):
        zero.init_distributed()


def shared_memory_worker():
    # as the deepspeed command sets it: all ranks on this machine
    os.environ["LOCAL_SIZE"] = os.environ["WORLD_SIZE"]
    zero.init_distributed()
    total = torch.full((1000,), 1.0 + dist.get_rank())
    deepspeed.comm.inference_all_reduce(total)
    mapped = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "deepspeed_allreduce" in line
    ]
    return (
        total.unique().tolist(),
        len(mapped),
        [line for line in mapped if not line.endswith("(deleted)")],
    )


def test_no_shared_memory_outlives_its_processes():
    for total, mapped, named in run_processes(2, "tests.dist.test_zero:shared_memory_worker"):
        assert total == [3.0]
        assert mapped == 2 and not named
