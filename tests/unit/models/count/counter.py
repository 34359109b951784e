"""What the tests of the FLOP counts share: a small model, its inputs, and torch's own counter."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.count.cost import ViewSize
from models.features import Views
from models.initialise import initialise
from models.pretraining.model import Pretraining
from models.spec import ContextSpec, FusionSpec, HeadSpec, ModalitySpec, ModelSpec

BATCH = 2
SIZES = {
    "global": ViewSize(2, {"hr": 64, "ms": 32, "sar": 24}),
    "local": ViewSize(3, {"hr": 32, "ms": 16, "sar": 8}),
}
HR = ModalitySpec(bands=3, frames=1, merge=(True, True, True), position_grids=(3, 2))
MS = ModalitySpec(bands=5, frames=3, merge=(False, False, False), position_grids=(4, 4))
SAR = ModalitySpec(bands=2, frames=2, merge=(False, False, False), position_grids=(4, 4))
DENSE = ModelSpec(
    modalities={"hr": HR, "ms": MS, "sar": SAR},
    widths=(8, 16, 32, 64),
    depths=(2, 1, 3, 2),
    head_dim=8,
    mlp_ratio=3,
    window=4,
    prompts=(0, 0, 2, 3),
    moe=None,
    fusion=FusionSpec(width=16, layers=3, heads=2, cells_per_token=2),
    context=ContextSpec(regions=3, prototypes=5, width=6),
    head=HeadSpec(3, 20, 10, 30),
    queries=4,
    text_width=12,
)


def inputs(spec: ModelSpec, sizes: dict[str, ViewSize], batch: int = BATCH) -> dict[str, Views]:
    """Views with every modality and frame present."""
    views = {}
    for size, (count, pixels) in sizes.items():
        shapes = {
            name: (batch, count, m.frames, m.bands, pixels[name], pixels[name])
            for name, m in spec.modalities.items()
        }
        views[size] = Views(
            images={name: torch.randn(shape) for name, shape in shapes.items()},
            valid={
                name: torch.ones(*shape[:3], *shape[4:], dtype=torch.bool)
                for name, shape in shapes.items()
            },
            days={
                name: torch.zeros(shape[:3], dtype=torch.int64) for name, shape in shapes.items()
            },
            region=torch.zeros(batch, dtype=torch.int64),
        )
    return views


def counted(function) -> int:
    """FLOPs that torch's counter sees. Fused attention of the CPU is unknown to it: plain products
    instead."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops()


def total(costs, what: str = "flops") -> float:
    return sum(getattr(cost, what) for cost in costs)


def built(spec: ModelSpec, **options) -> Pretraining:
    model = Pretraining(spec, **options)
    initialise(model, 0)
    return model
