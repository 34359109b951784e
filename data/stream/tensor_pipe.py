"""Objects with tensors through a pipe, without shared memory.

A tensor in shared memory would need its sender alive and awake when it is opened. Here everything
has arrived when ``receive`` returns, and a sender that dies in the middle is noticed.
"""

import dataclasses
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Place:
    """Where a tensor belongs, whose bytes follow."""

    shape: torch.Size
    dtype: torch.dtype


def send(connection: Connection, value: Any) -> None:
    """Send a value: dataclasses, dictionaries and lists are searched for tensors on the CPU."""
    tensors: list[Tensor] = []
    connection.send(_take_out(value, tensors))
    for tensor in tensors:
        data = _bytes(tensor)
        while data:
            data = data[os.write(connection.fileno(), data) :]


def receive(connection: Connection) -> Any:
    """Receive a value.

    Raises:
        EOFError: the sender has ended.
    """
    return _put_in(connection.recv(), connection)


def _take_out(value: Any, tensors: list[Tensor]) -> Any:
    """A copy of a value with a place instead of each tensor, which is added to ``tensors``."""
    if isinstance(value, Tensor):
        tensors.append(value.contiguous())
        return _Place(value.shape, value.dtype)
    if isinstance(value, dict):
        return {name: _take_out(entry, tensors) for name, entry in value.items()}
    if isinstance(value, list):
        return [_take_out(entry, tensors) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {name: _take_out(entry, tensors) for name, entry in _fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _put_in(value: Any, connection: Connection) -> Any:
    """A copy of a value with the tensors in their places, in the order of ``_take_out``."""
    if isinstance(value, _Place):
        tensor = torch.empty(value.shape, dtype=value.dtype)
        _fill(connection, _bytes(tensor))
        return tensor
    if isinstance(value, dict):
        return {name: _put_in(entry, connection) for name, entry in value.items()}
    if isinstance(value, list):
        return [_put_in(entry, connection) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {name: _put_in(entry, connection) for name, entry in _fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _fields(value: Any) -> list[tuple[str, Any]]:
    """Names and values of a dataclass's fields."""
    return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return tensor.flatten().view(torch.uint8).numpy().data


def _fill(connection: Connection, space: memoryview) -> None:
    """Read into memory until it is full."""
    while space:
        count = os.readv(connection.fileno(), [space])
        if count == 0:
            raise EOFError
        space = space[count:]
