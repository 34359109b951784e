"""The teacher: a moving average of the student's float32 weights, kept in ZeRO's shards."""

import torch
from torch import nn

from engine.distributed import zero
from engine.distributed.flat_copy import FlatCopy


class EmaTeacher:
    """ema = m x ema + (1 - m) x student, in float32 on this rank's shards.

    A moving average held in bf16 never moves: at m = 0.996 a step's change lies below its
    resolution. Averaging the shards costs 4 bytes a parameter over all ranks together, and gives
    the same bits as averaging the whole model. ``module`` shows the average in the type that the
    network computes in.
    """

    def __init__(self, engine: zero.DeepSpeedEngine, module: nn.Module):
        """Start as a copy of the student, buffers included. Every rank must call it.

        Args:
            engine: The engine that trains the student.
            module: The module that shows the average. It has the student's names and shapes on this
                rank, lies on its device and has the type that the teacher shall compute in. Later
                its buffers are the caller's.

        Raises:
            ValueError: The names differ.
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
        self.flat_copy = FlatCopy(engine, module)
        self.show()
        module.register_forward_pre_hook(lambda *_: self.wait())
        module.register_state_dict_pre_hook(lambda *_: self.wait())

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Follow the student after a step that was applied; every rank must call it.

        It returns while the ranks still exchange their shards. The module's next forward waits for
        them, and so does its ``state_dict``. Call ``wait`` before reading parameters in another
        way.
        """
        self.wait()
        students = zero.partitions(self.engine)
        for index, (ema, student) in enumerate(zip(self.shards, students, strict=True)):
            # Not m x ema + (1 - m) x student: in float32 the two factors do not add up to 1, which
            # pulls the teacher to zero as m nears 1. And each operation rounds once, so the bits do
            # not depend on where a shard is cut.
            ema.add_((student - ema).mul_(1 - momentum))
            self.flat_copy.start(index, ema)

    def wait(self) -> None:
        """Wait until the module holds the weights of the last update."""
        self.flat_copy.wait()

    def show(self) -> None:
        """Let the module have the weights in ``shards``, in its own type; every rank must call it.

        For those who have changed the shards.
        """
        self.flat_copy.fill(self.shards)
