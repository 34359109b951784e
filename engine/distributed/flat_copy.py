"""A module outside the engine that is filled from ZeRO's shards, such as the teacher."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.distributed import zero


class FlatCopy:
    """The parameters of a module outside the engine, laid out as ZeRO lays out its own.

    They become views of one flat vector for each group. So what is gathered needs neither a second
    place nor a copy.
    """

    @torch.no_grad()
    def __init__(self, engine: zero.DeepSpeedEngine, module: nn.Module):
        """Move the parameters into flat vectors; their values stay.

        Args:
            engine: The engine whose layout is taken.
            module: It has the names and shapes of the engine's model on this rank.

        Raises:
            ValueError: The parameters of a group are of several types.
        """
        self.processes: list[dist.ProcessGroup] = []
        self.flats: list[Tensor] = []
        self.pending: list[dist.Work] = []
        parameters = dict(module.named_parameters())
        shards = zero.partitions(engine)
        for shard, group in zip(shards, zero.flat_groups(engine), strict=True):
            targets = [parameters[name] for name in group.names]
            size = shard.numel() * dist.get_world_size(group.processes)
            self.processes.append(group.processes)
            self.flats.append(_flatten(targets, group.offsets, size))

    @torch.no_grad()
    def start(self, index: int, shard: Tensor) -> None:
        """Begin to put the shards of group ``index`` together, cast to the module's type.

        Every rank must call it. Until ``wait`` the parameters hold nothing of use. The shard is
        free again at once. Cast first and exchanged then gives the same bits as the other way
        round, and in bf16 half as much travels.
        """
        flat = self.flats[index]
        processes = self.processes[index]
        own_part = flat.view(dist.get_world_size(processes), -1)[dist.get_rank(processes)]
        own_part.copy_(shard)
        if own_part.numel() != flat.numel():
            work = dist.all_gather_into_tensor(flat, own_part, group=processes, async_op=True)
            self.pending.append(work)

    def wait(self) -> None:
        """Wait for the started collectives. On a GPU only the stream waits, not the host."""
        for work in self.pending:
            work.wait()
        self.pending = []

    def fill(self, shards: list[Tensor]) -> None:
        """Put the shards of all groups together; every rank must call it."""
        self.wait()
        for index, shard in enumerate(shards):
            self.start(index, shard)
        self.wait()


def _flatten(parameters: list[nn.Parameter], offsets: list[int], size: int) -> Tensor:
    """Make parameters views of one flat vector of ``size`` elements, each at its offset."""
    types = {parameter.dtype for parameter in parameters}
    if len(types) != 1:
        raise ValueError(
            f"flat copy: expected parameters of one type, found {sorted(map(str, types))}; "
            "cast the module first"
        )
    flat = parameters[0].new_zeros(size)
    for parameter, offset in zip(parameters, offsets, strict=True):
        view = flat[offset : offset + parameter.numel()].view_as(parameter)
        view.copy_(parameter)
        parameter.data = view
    return flat
