"""What makes the host wait for a GPU, found on a CPU: which operations, and which lines of Python
asked for them.

On a GPU torch's own sync debug mode finds them (``tests/gpu/test_host_waits.py``). Without one,
this records the same kinds of operations: numbers fetched from a tensor, results whose shape
depends on data, copies that are waited for.
"""

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.paths import ROOT

# their kernels copy a number, or the size of their result, to the host
_OPERATORS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "unique_dim_consecutive",
    "equal",
    "bincount",
    "segment_reduce",
    "_linalg_check_errors",
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_FETCHES = {"tolist", "cpu", "numpy", "__array__"}  # on a CPU they reach no operator
_UPLOADS = {
    "tensor",
    "as_tensor",
    "new_tensor",
}  # from Python's numbers: a copy from memory that is not pinned


class HostWaits:
    """Context that counts operations that wait, by place: ``found[place, operation]``.

    A place is "file:function" of the innermost frame of the project or of DeepSpeed.
    """

    def __init__(self):
        self.found: Counter[tuple[str, str]] = Counter()
        self.modes = _Operators(self.found), _Calls(self.found)

    def __enter__(self) -> "HostWaits":
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *error) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*error)


class _Operators(TorchDispatchMode):
    """Operators, those of the backward pass included."""

    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in _INDEXING and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        kwargs = kwargs or {}
        sized = (
            name == "repeat_interleave"
            and not kwargs.get("output_size")
            and isinstance(args[-1], torch.Tensor)
        )
        asks = name in _OPERATORS and not kwargs.get(
            "unsafe"
        )  # segment_reduce looks at its lengths unless told not to
        if asks or masks or sized:
            self.found[place(), name] += 1
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """Calls of Python that copy between host and device; on a CPU they do nothing, so no operator
    shows them."""

    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        uploads = name in _UPLOADS and (kwargs.get("device") is not None or name == "new_tensor")
        lists = name in ("__getitem__", "__setitem__") and any(
            isinstance(x, list) for x in (args[1] if isinstance(args[1], tuple) else (args[1],))
        )
        moves = name == "to" and _waits(args[1:], kwargs)
        if name in _FETCHES or uploads or lists or moves:
            self.found[place(), name] += 1
        return func(*args, **kwargs)


def _waits(args: tuple, kwargs: dict) -> bool:
    """Whether ``Tensor.to`` was asked for another device and to wait for it."""
    devices = [x for x in (*args, kwargs.get("device")) if isinstance(x, (torch.device, str))]
    return bool(devices) and not (kwargs.get("non_blocking") or True in args)


def place(above: int = 1) -> str:
    """Name the innermost frame of the project or of DeepSpeed as "file:function".

    ``above``: how many frames above this one the search begins.
    """
    frame = sys._getframe(above)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(f"{ROOT}/") and "site-packages" not in path and path != __file__:
            return f"{Path(path).relative_to(ROOT)}:{frame.f_code.co_name}"
        if "/deepspeed/" in path:
            return f"deepspeed/{path.rpartition('/deepspeed/')[2]}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "nowhere"
