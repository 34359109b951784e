"""A world of any number of ranks in one process, whose tensors hold no values.

Everything that a rank of a run does can be rehearsed in it: tensors lie on torch's meta device, a
process group of torch's answers every collective at once, and DeepSpeed takes the meta device for
a GPU with streams of its own.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

import deepspeed
import torch
import torch.distributed as dist

# Lets collectives take meta tensors.
import torch.distributed._tools.fake_collectives
from deepspeed.accelerator import get_accelerator, set_accelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from torch.testing._internal.distributed.fake_pg import FakeStore

DEVICE = torch.device("meta")
FIRST_STREAM = 0  # the number of the stream that everything runs on unless DeepSpeed says otherwise


@dataclass(frozen=True)
class Queue:
    """A stream of a GPU."""

    number: int

    def wait_stream(self, other: "Queue") -> None:
        """Nothing runs, so nothing waits."""

    def synchronize(self) -> None:
        """Nothing runs, so nothing waits."""


class MetaAccelerator(CPU_Accelerator):
    """What DeepSpeed asks of a GPU, answered for the meta device."""

    def __init__(self, on_stream: Callable[[int], None]):
        """Args: ``on_stream`` hears the number of the stream that work is put on from now on."""
        super().__init__()
        self.on_stream = on_stream
        self.current = Queue(FIRST_STREAM)
        self.streams = 1

    def device_name(self, device_index=None) -> str:
        """Where DeepSpeed puts its tensors."""
        return DEVICE.type

    def current_device_name(self) -> str:
        """The same."""
        return DEVICE.type

    def is_synchronized_device(self) -> bool:
        """A GPU is not, so DeepSpeed makes a stream for the gradients."""
        return False

    def Stream(self, *_, **__) -> Queue:
        """A new stream."""
        self.streams += 1
        return Queue(self.streams - 1)

    def current_stream(self, device_index=None) -> Queue:
        """The stream that work is put on."""
        return self.current

    def default_stream(self, device_index=None) -> Queue:
        """The stream that work is put on at first."""
        return Queue(FIRST_STREAM)

    @contextmanager
    def stream(self, stream: Queue) -> Iterator[None]:
        """Put the work inside on another stream."""
        before = self.current
        self._change(stream)
        try:
            yield
        finally:
            self._change(before)

    def synchronize(self, device_index=None) -> None:
        """Nothing runs, so nothing waits."""

    def create_op_builder(self, class_name: str) -> None:
        """There are no operators to compile."""

    def get_op_builder(self, class_name: str) -> None:
        """There are no operators to compile."""

    def _change(self, stream: Queue) -> None:
        self.current = stream
        self.on_stream(stream.number)


@contextmanager
def fake_world(world_size: int, on_stream: Callable[[int], None]) -> Iterator[None]:
    """Be rank 0 of ``world_size`` ranks on the meta device.

    DeepSpeed remembers the groups of a world for as long as the process lives. So a process can be
    in one such world only, and in no other before or after.

    Args:
        world_size: Number of ranks.
        on_stream: Hears the number of the stream that work is put on from now on.
    """
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(world_size)}
    environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    accelerator = get_accelerator()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        # Both know only devices with values.
        stack.enter_context(mock.patch.object(torch.Tensor, "record_stream", _record_stream))
        stack.enter_context(
            mock.patch.object(
                importlib.import_module("torch.optim.optimizer"),
                "_get_fused_kernels_supported_devices",
                return_value=[DEVICE.type],
            )
        )
        dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
        set_accelerator(MetaAccelerator(on_stream))
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
        try:
            yield
        finally:
            deepspeed.comm.destroy_process_group()
            set_accelerator(accelerator)


def _record_stream(tensor: torch.Tensor, stream: Queue) -> None:
    """Streams that do nothing are always done with a tensor."""
