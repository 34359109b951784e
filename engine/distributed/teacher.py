"""The teacher: a moving average of the student's float32 weights, kept in ZeRO's shards."""

import torch
from torch import Tensor, nn

from data.errors import InputError
from engine.distributed import zero
from engine.distributed.collectives import together
from engine.distributed.shard_names import BUFFER, SHARD
from models.moe.layer import canonical_names


class EmaTeacher:
    """ema = m x ema + (1 - m) x student, in float32 on this rank's shards, shown in a module of the compute type.

    A moving average held in bf16 never moves: at m = 0.996 a step's change lies below its
    resolution. Averaging the shards costs 4 bytes a parameter over all ranks together, and gives
    the very bits of averaging the whole model.
    """

    def __init__(self, engine, module: nn.Module):
        """Start as a copy of the student, buffers included.

        ``module`` has the student's names and shapes on this rank, lies on its device and is of the
        type that the teacher shall compute in. Later the buffers are the caller's. Every rank must
        call it. Raises ValueError if the names differ.
        """
        self.engine = engine
        self.module = module.eval().requires_grad_(False)
        student = engine.module.state_dict()
        strange = sorted(student.keys() ^ module.state_dict().keys())
        if strange:
            raise ValueError(
                f"teacher: expected the student's names, found {strange[0]} in one of them only"
            )
        module.load_state_dict(student)
        self.shards = [shard.clone() for shard in zero.partitions(engine)]
        self.shown = zero.FlatCopy(engine, module)
        self.shown.fill(self.shards)
        module.register_forward_pre_hook(lambda *_: self.wait())
        module.register_state_dict_pre_hook(lambda *_: self.wait())

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Follow the student after a step that was applied; every rank must call it.

        Returns while the ranks still exchange their shards. The module's next forward waits for
        them, and so does its ``state_dict``; whoever reads parameters otherwise must ``wait``.
        """
        self.wait()
        for index, (ema, student) in enumerate(
            zip(self.shards, zero.partitions(self.engine), strict=True)
        ):
            # Not m x ema + (1 - m) x student: in float32 the two factors do not add up to 1, which
            # pulls the teacher to zero as m nears 1. And each operation rounds once, so the bits do
            # not depend on where a shard is cut.
            ema.add_((student - ema).mul_(1 - momentum))
            self.shown.start(index, ema)

    def wait(self) -> None:
        """Until the module holds the weights of the last update."""
        self.shown.wait()

    def state(self) -> dict[str, Tensor]:
        """``shard.<group>``: this rank's; ``buffer.<name>``: equal on all ranks, also those that
        the student shares. Live tensors."""
        shards = {f"{SHARD}{index:05d}": shard for index, shard in enumerate(self.shards)}
        return shards | {BUFFER + name: buffer for name, buffer in self._buffers().items()}

    def _buffers(self) -> dict[str, Tensor]:
        """Buffers that a checkpoint must have."""
        saved = self.module.state_dict().keys()
        return {name: buffer for name, buffer in self.module.named_buffers() if name in saved}

    def layout(self) -> list[dict]:
        """What lies where in the shards of ``state``: see ``zero.layout``. Experts have their
        global names."""
        return zero.layout(self.engine, canonical_names(self.engine.module))

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the tensors that ``state`` gave; every rank must call it. Raises RankError if they
        do not fit."""
        together(lambda: self._copy(state))
        self.shown.fill(self.shards)

    @torch.no_grad()
    def _copy(self, state: dict[str, Tensor]) -> None:
        mine = self.state()
        shapes, found = (
            {name: tuple(x.shape) for name, x in tensors.items()} for tensors in (mine, state)
        )
        if shapes != found:
            name = min(
                name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)
            )
            raise InputError(
                f"teacher: expected {name} of shape {shapes.get(name)}, found {found.get(name)}; "
                "the checkpoint is of another model"
            )
        for name, tensor in mine.items():
            tensor.copy_(state[name])
