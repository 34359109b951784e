"""Activation checkpointing: gradients do not depend on what is kept, memory and recomputed products
do.

``pytest -s tests/unit/models/test_recompute.py -k paper`` prints the table for the paper's backbone
and fusion, counted without memory on the meta device.
"""

from unittest.mock import patch

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from data.stream.settings import ViewSettings
from models.errors import ModelError
from models.features import FUSED, Views
from models.initialise import initialise
from models.recompute import POLICIES
from models.skysense import SkySense
from models.spec import ContextSpec, FusionSpec, ModalitySpec, ModelSpec, MoESpec

SIDES = {"hr": 32, "ms": 8}  # pixels along a side of a view
SMALL = ModelSpec(
    modalities={
        "hr": ModalitySpec(2, 1, (True, True, False), (2, 1)),
        "ms": ModalitySpec(3, 2, (False,) * 3, (2, 2)),
    },
    patch=2,
    widths=(8, 16, 32, 64),
    depths=(2, 2, 2, 2),
    head_dim=8,
    window=2,
    moe=MoESpec(blocks=(5, 6), experts=2, capacity_factor=1.25),
    fusion=FusionSpec(width=16, layers=2, heads=2, cells_per_token=2),
    context=ContextSpec(regions=2, prototypes=3, width=8),
)


def views(
    spec: ModelSpec, pixels: dict[str, int], count: int, device: str = "cpu", dtype=torch.float32
) -> Views:
    """One sample's views of one size."""
    images, valid, days = {}, {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, m in spec.modalities.items():
        side = pixels[name]
        shape = (1, count, m.frames, m.bands, side, side)
        image = (
            torch.empty(shape, device="meta")
            if device == "meta"
            else torch.randn(shape, generator=generator)
        )
        images[name] = image.to(dtype)
        valid[name] = torch.ones(1, count, m.frames, side, side, dtype=torch.bool, device=device)
        days[name] = torch.zeros(shape[:3], dtype=torch.int64, device=device)
    return Views(images, valid, days, torch.zeros(1, dtype=torch.int64, device=device))


class Storages(TorchDispatchMode):
    """Bytes of what operators have made and is still alive."""

    def __init__(self):
        super().__init__()
        self.made = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                ref = StorageWeakRef(x.untyped_storage())
                self.made[ref.cdata] = ref, x.untyped_storage().nbytes()
        return out

    def alive(self) -> int:
        return sum(size for ref, size in self.made.values() if not ref.expired())


def gradients(policy) -> list[torch.Tensor]:
    model = SkySense(SMALL, recompute=policy)
    initialise(model, 2)
    for norm in (m for m in model.modules() if type(m).__name__ == "BlockNorm"):
        torch.nn.init.constant_(norm.weight, 0.5)
    features, routings = model({"global": views(SMALL, SIDES, 2)})
    loss = features["global"].maps[FUSED].square().mean() + sum(r.balance for r in routings)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def test_gradients_do_not_depend_on_what_is_kept():
    found = [gradients(policy) for policy in POLICIES]
    assert len(found[0]) > 60
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def attention(q, k, v, attn_mask=None, scale=None):
    """The operator of CUDA, which keeps its output and one number a row. The meta device would keep
    all scores."""
    if attn_mask is not None:
        attn_mask = attn_mask.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, True, scale=scale
    )[0]


def cost(spec: ModelSpec, sizes: dict[str, tuple[int, dict]], policy) -> tuple[int, int]:
    """Bytes alive after the forward pass of one sample in bf16, and FLOPs computed again in the
    backward pass."""
    with (
        torch.device("meta"),
        patch.object(torch.nn.functional, "scaled_dot_product_attention", attention),
    ):
        model = SkySense(spec, recompute=policy).bfloat16()
        inputs = {
            size: views(spec, pixels, count, "meta", torch.bfloat16)
            for size, (count, pixels) in sizes.items()
        }
        with Storages() as storages, FlopCounterMode(display=False) as forward:
            features, _ = model(inputs)
            loss = sum(found.maps[FUSED].sum() for found in features.values())
        kept = storages.alive()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return kept, backward.get_total_flops() - 2 * forward.get_total_flops()


def table(spec: ModelSpec, sizes: dict[str, tuple[int, dict]]) -> dict:
    found = {policy: cost(spec, sizes, policy) for policy in POLICIES}
    return {policy: (kept, again - found["none"][1]) for policy, (kept, again) in found.items()}


def test_what_is_kept_and_what_is_computed_again():
    found = table(SMALL.variant(moe=None), {"global": (2, SIDES)})
    kept, again = ({policy: row[i] for policy, row in found.items()} for i in (0, 1))
    assert (
        kept["none"] > kept["pointwise"] > kept["blocks"]
        and kept["none"] > kept["windows"] > kept["blocks"]
    )
    assert again["none"] == again["pointwise"] == 0 < again["windows"] < again["blocks"]


def test_the_table_of_the_papers_model():
    spec = ModelSpec.skysense_v2().variant(moe=None)
    sizes = {name: (size.count, size.pixels) for name, size in ViewSettings().sizes.items()}
    found = table(spec, sizes)
    for policy, (kept, again) in found.items():
        memory = f"{kept / 2**30:8.2f} GiB a sample"
        print(f"{policy:>10} {memory} {again / 1e12:8.3f} TFLOP computed again")
    assert found["none"][0] > found["pointwise"][0] > found["blocks"][0]


def test_an_unknown_policy_is_refused():
    with pytest.raises(
        ModelError,
        match="recompute: expected one of none, blocks, windows, pointwise, found 'some'",
    ):
        gradients("some")
