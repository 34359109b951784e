"""Written files against the library that reads them."""

import os
import resource
import signal

import google_crc32c
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from data.errors import InputError
from engine.checkpoint.tensor_file import write_tensors

TENSORS = {
    "float32": torch.randn(3, 5),
    "bfloat16": torch.randn(7, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "int64": torch.tensor([[2**40, -1]]),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "empty": torch.empty(0, 4),
    "strided": torch.arange(12.0).view(3, 4).t(),
    "long": torch.arange(2**19 + 3, dtype=torch.float32),  # more than one piece
}


def test_the_library_reads_what_was_written(tmp_path):
    file = tmp_path / "a.safetensors"
    stamp = write_tensors(file, TENSORS, {"layout": '[["ä"]]'})
    read = load_file(file)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"layout": '[["ä"]]'}
    content = file.read_bytes()
    assert stamp == {"size": len(content), "crc32c": f"{google_crc32c.value(content):08x}"}


def test_no_tensors_are_a_file_too(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {})
    assert load_file(tmp_path / "a.safetensors") == {}


@pytest.mark.parametrize("umask, mode", [(0o027, 0o640), (0o077, 0o600)])
def test_the_umask_says_who_reads(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "a.safetensors", TENSORS)
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path):
    file = tmp_path / "a.safetensors"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"{file}: cannot be written \(file too large\)"):
            write_tensors(file, TENSORS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    with pytest.raises(InputError, match=r"none/a: cannot be written \(no such file or directory"):
        write_tensors(tmp_path / "none/a", TENSORS)
