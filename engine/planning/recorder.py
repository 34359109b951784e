"""Listens to all operators of a rehearsal: allocations, releases, collectives and work.

Where an operator's result depends on values, which a rehearsal does not have, the recorder gives
one of a likely shape.
"""

import weakref
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from engine.planning.temporaries import temporary
from engine.training.step import SPAN

ATEN = torch.ops.aten
EXACT = (torch.float32, torch.float64)
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class Allocation(NamedTuple):
    """A storage comes to be."""

    storage: int
    size: int  # bytes
    stream: int
    part: str  # of the step


class Release(NamedTuple):
    """A storage goes."""

    storage: int


class Begin(NamedTuple):
    """A part of the step begins."""

    part: str


class Collective(NamedTuple):
    """An exchange between ranks."""

    part: str  # of the step
    name: str  # of the operator
    size: int  # bytes of the largest tensor of this rank
    ranks: tuple[int, ...]  # that take part


class Kind(NamedTuple):
    """Operators that are counted together."""

    part: str  # of the step
    operator: str
    is_float32: bool  # or of more bits: no tensor cores


@dataclass
class Work:
    """What operators of one kind compute and move."""

    launches: int = 0
    flops: int = 0
    size: int = 0  # bytes read and written


class Recorder(TorchDispatchMode):
    """Records while it is entered. Only tensors without values count."""

    def __init__(self, *, matched: float):
        """Args: ``matched``, the share of the elements of a mask that are taken for true."""
        super().__init__()
        self.matched = matched
        self.part = "start"
        self.stream = 0
        self.events: list[Allocation | Release | Begin] = []
        self.collectives: list[Collective] = []
        self.work: dict[Kind, Work] = defaultdict(Work)
        self.items: dict[int, str] = {}  # storage -> what it holds, where somebody said so
        self._known: dict[int, int] = {}  # a living storage's address -> its number
        self._count = 0

    def begin(self, part: str) -> None:
        """Count what follows to another part of the step."""
        self.part = part
        self.events.append(Begin(part))

    def change_stream(self, number: int) -> None:
        """Count what follows to another stream of the GPU."""
        self.stream = number

    def hold(self, item: str, tensors: Iterable[Tensor]) -> None:
        """Name what tensors hold, and count those that were made before."""
        for tensor in tensors:
            self._see(tensor)
            self.items[self._known[tensor.untyped_storage()._cdata]] = item

    def drop(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors no longer, as they lie on no GPU in a real run."""
        for tensor in tensors:
            self._forget(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run an operator and note what it did."""
        kwargs = kwargs or {}
        name = function._schema.name
        if function.namespace == "profiler":
            self._hear_span(name, args)
            return function(*args, **kwargs)
        if function is ATEN._local_scalar_dense.default and args[0].is_meta:
            return _zero(args[0].dtype)
        if name == "aten::_to_copy" and args[0].is_meta and _goes_to_host(kwargs):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if name == "aten::_fused_adamw_":  # in place, and not written for the meta device
            self.note_work(name, tree_leaves(args))
            return None
        if function is ATEN.addmm.dtype_out:  # likewise
            note = self.note_work(name, [*args[:3], kwargs["out"]])
            note.flops += 2 * args[1].numel() * args[2].shape[-1]
            return kwargs["out"]
        if name == "aten::nonzero" and args[0].is_meta:
            result = self._places(args[0], int(self.matched * args[0].numel()))
        else:
            if name in INDEXED:
                args = (args[0], self._indices(name, args), *args[2:])
            result = function(*args, **kwargs)
        if function.namespace == "c10d":
            self._note_collective(name, args)
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self._see(tensor)
        if not function.is_view and any(tensor.is_meta for tensor in tensors):
            inputs = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            work = self.note_work(name, [*inputs, *tensors])
            self._take(temporary(name, args, result))
            packet = function._overloadpacket
            if packet is ATEN._grouped_mm:
                work.flops += 2 * args[0].numel() * args[1].shape[-1]
            elif packet in flop_registry:
                work.flops += flop_registry[packet](*args, **kwargs, out_val=result)
        return result

    def _hear_span(self, name: str, args: tuple) -> None:
        """Follow the spans that a step names for torch's profiler."""
        if name == "profiler::_record_function_enter_new" and args[0].startswith(SPAN):
            self.begin(args[0].removeprefix(SPAN))

    def _see(self, tensor: Tensor) -> None:
        """Note the storage of a tensor when it is new, and when it goes."""
        if not tensor.is_meta:
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        size = storage.nbytes()
        if address in self._known or size == 0:
            return
        number = self._count
        self._count += 1
        self._known[address] = number
        weakref.finalize(storage, self._forget, address).atexit = False
        self.events.append(Allocation(number, size, self.stream, self.part))

    def _take(self, size: int) -> None:
        """Note memory that an operator takes for itself."""
        if size == 0:
            return
        self.events.append(Allocation(self._count, size, self.stream, self.part))
        self.events.append(Release(self._count))
        self._count += 1

    def _forget(self, address: int) -> None:
        if address in self._known:  # it may have been dropped before
            self.events.append(Release(self._known.pop(address)))

    def note_work(self, name: str, tensors: Iterable) -> Work:
        """Count an operator and the bytes of the tensors that it reads and writes."""
        touched = [leaf for leaf in tensors if isinstance(leaf, Tensor)]
        types = [tensor.dtype for tensor in touched if tensor.is_floating_point()]
        is_float32 = bool(types) and types[0] in EXACT  # the first input says it
        work = self.work[Kind(self.part, name.removeprefix("aten::"), is_float32)]
        work.launches += 1
        work.size += sum(tensor.nbytes for tensor in touched)
        return work

    def _note_collective(self, name: str, args: tuple) -> None:
        """Count an exchange."""
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        size = max((tensor.nbytes for tensor in tensors), default=0)
        ranks: tuple[int, ...] = ()
        for argument in args:
            if isinstance(argument, torch.ScriptObject) and "ProcessGroup" in str(argument._type()):
                ranks = tuple(dist.get_process_group_ranks(dist.ProcessGroup.unbox(argument)))
        self.collectives.append(Collective(self.part, name.removeprefix("c10d::"), size, ranks))

    def _places(self, mask: Tensor, count: int) -> Tensor:
        """Where ``count`` elements of a mask lie: (count, dimensions) int64."""
        return torch.empty(count, mask.dim(), dtype=torch.int64, device=mask.device)

    def _indices(self, name: str, args: tuple) -> list[Tensor | None]:
        """The indices of an operator of ``INDEXED``, masks replaced by places."""
        indices: list[Tensor | None] = []
        for index in args[1]:
            if index is None or index.dtype != torch.bool or not index.is_meta:
                indices.append(index)
                continue
            count = int(self.matched * index.numel())
            if name != "aten::index" and args[2].dim() > 0:
                count = len(args[2])
            indices += self._places(index, count).unbind(1)
        return indices


def _zero(dtype: torch.dtype) -> bool | int | float:
    """What the host reads of any tensor: no overflow, no infinite loss, the first class."""
    return torch.zeros((), dtype=dtype).item()


def _goes_to_host(options: dict[str, Any]) -> bool:
    device = options.get("device")
    return device is not None and torch.device(device).type == "cpu"
