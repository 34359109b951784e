"""A small model with real experts, for the tests of ZeRO-2, teacher and checkpoint: every kind of
parameter once."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from engine.checkpoint.save import Saver
from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer
from models.moe.layer import MoE, canonical_names
from models.reducer import Reducer
from models.spec import MoESpec
from tests.unit.layouts import run_moe

WIDTH = 8
TOKENS = 12  # of one half of the global batch
HALVES = 4  # the global batch is four halves, whatever the number of ranks


class Small(nn.Module):
    """Linear, norm, token, experts, a head's last layer and a buffer; (N, 6) and (N, 5) -> loss."""

    def __init__(self, ep_size: int | None, reducer: Reducer, width: int = WIDTH):
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.norm = nn.LayerNorm(width)
        self.token = nn.Parameter(torch.empty(1, width))
        self.moe = MoE(
            width,
            2 * width,
            MoESpec(experts=4, capacity_factor=0.0),
            ep_size=ep_size,
            reducer=reducer,
        )
        self.last_layer = nn.Linear(width, 5, bias=False)
        self.register_buffer("centre", torch.zeros(5))
        self.reducer = reducer
        names = canonical_names(self)
        for name, parameter in self.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(names[name].encode()))
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4

    def forward(self, x, target):
        """Loss of this rank's tokens; the buffer follows the mean of the global batch."""
        x = x.to(self.embed.weight.dtype)
        h = self.norm(self.embed(x)) + self.token
        y, routing = run_moe(self.moe, h, torch.ones(len(h), dtype=torch.bool))
        out = self.last_layer(h + y).float()
        if self.training:
            mean = self.reducer.sum(out.detach().mean(0)) / self.reducer.world_size
            self.centre.lerp_(mean.to(self.centre.dtype), 0.1)
        return F.mse_loss(out, target) + 0.1 * routing.balance


def parameter_groups(model) -> list[dict]:
    """Optimizer groups: no decay on vectors and the token, the last layer apart."""
    return zero.parameter_groups(
        model,
        weight_decay=0.1,
        is_no_decay=lambda name, p: p.ndim < 2 or name == "token",
        is_last_layer=lambda name, p: name == "last_layer.weight",
    )


def batch(step: int, rank: int, world: int):
    """This rank's share of the global batch of a step."""
    share = HALVES // world
    inputs = []
    targets = []
    for half in range(rank * share, (rank + 1) * share):
        generator = torch.Generator().manual_seed(100 * step + half)
        inputs.append(torch.randn(TOKENS, 6, generator=generator))
        targets.append(5 * torch.randn(TOKENS, 5, generator=generator))
    return torch.cat(inputs), torch.cat(targets)


def config(
    bf16: bool = False,
    clip: float = 1.0,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    **zero_keys,
) -> dict:
    """DeepSpeed's keys. The small reduce bucket cuts gradients of one layer apart, as large models
    do."""
    return {
        "train_batch_size": HALVES,
        "gradient_clipping": clip,
        "bf16": {"enabled": bf16},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": 1e-2, "betas": list(betas), "eps": eps, "torch_adam": True},
        },
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 300, **zero_keys},
    }


def start(ep_size: int, width: int = WIDTH, **keys):
    """DeepSpeed engine around the model of this rank."""
    model = Small(ep_size, DistributedReducer(), width)
    return zero.initialize(model, config(**keys), parameter_groups(model))


def train_step(engine, step: int, lr: float = 1e-2) -> float:
    """One step of the global batch; the gradient norm."""
    rank, world, _ = zero.ranks()
    last_layer_lr = 0.0
    if step > 0:
        last_layer_lr = lr
    zero.set_schedule(engine, lr=lr, weight_decay=0.1, last_layer_lr=last_layer_lr)
    engine.backward(engine(*batch(step, rank, world)))
    engine.step()
    assert zero.was_applied(engine)
    return zero.gradient_norm(engine)


def publish(run_dir, step: int, engine, teacher, *, keep: int = 9, **extra):
    """Save, and wait until the checkpoint is published."""
    saver = Saver(Path(run_dir), engine=engine, teacher=teacher, keep=keep)
    saver.start(step, extra)
    saver.finish()
