"""A copy of a rank's state in host memory: written while the training changes the live tensors."""

import torch
from torch import Tensor

from engine.checkpoint.state import State


class HostCopy:
    """Host memory for one state of a run, which every copy uses again.

    It is page-locked where the tensors come from a GPU, so that they come at the speed of the bus.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def prepare(self, state: State) -> None:
        """Take the memory for states like this one, which takes ten times longer than a copy."""
        state.map(self._memory_for)

    @torch.no_grad()
    def take(self, state: State) -> State:
        """Copy a state, over the copy taken before.

        It returns when all tensors have arrived, and so has waited for the work that the device had
        to do before.
        """
        copy = state.map(self._copy)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copy

    def _memory_for(self, place: str, tensor: Tensor) -> Tensor:
        """The memory of a tensor, taken at its first use."""
        if place not in self._memory:
            # Zeros, because the system hands out memory only when something is written there.
            self._memory[place] = torch.zeros(
                tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
            )
        return self._memory[place]

    def _copy(self, place: str, tensor: Tensor) -> Tensor:
        """A tensor's copy; from a GPU it is still on its way when this returns."""
        return self._memory_for(place, tensor).copy_(tensor, non_blocking=True)
