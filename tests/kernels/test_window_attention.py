"""The window attention kernel against the reference in float64: values, and gradients of qkv, scale
and bias table."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

pytest.importorskip("triton")

from models.backbone.feed_forward import FeedForward
from models.backbone.swin_v2 import MIN_NORM, SwinBlock, WindowAttention
from models.backbone.windows import windows_of
from models.initialise import initialise
from models.kernels import dispatch
from models.kernels.window_attention import window_attention
from models.packing import Group, Layout

pytestmark = pytest.mark.filterwarnings(
    "ignore:divide by zero:RuntimeWarning"
)  # numpy, of 1 / norm of a blank patch
WINDOW = 8
HEADS, DIM = 2, 16
# Roundings of the type that a result may be off, by norm. In half precision inputs are exact,
# products are summed in float32 and only weights, their gradient and the result are rounded; in
# float32 logits of 30 carry 30 roundings into the exponential, and the gradient of the scale is a
# sum of terms of both signs.
ROUNDINGS = {torch.float32: 100, torch.float16: 8, torch.bfloat16: 8}


def inputs(images, height, width, device, *, heads=HEADS, dim=DIM, dtype=torch.float32, seed=0):
    """qkv (images, h, w, 3, heads, d), scale (heads,), table ((2w-1)^2, heads), gradient (images,
    hw, D)."""
    source = torch.Generator().manual_seed(seed)
    qkv = torch.randn(images, height, width, 3, heads, dim, generator=source)
    table = torch.randn((2 * WINDOW - 1) ** 2, heads, generator=source)
    gradient = torch.randn(images, height * width, heads * dim, generator=source)
    scale = torch.linspace(2, 12, heads)
    return (
        qkv.to(device, dtype),
        scale.to(device),
        (2 * table).to(device),
        gradient.to(device, dtype),
    )


def kernel(qkv, scale, table, shift):
    cut = windows_of(*qkv.shape[1:3], window=WINDOW, shift=shift)
    return window_attention(
        qkv,
        scale,
        table,
        side=cut.side,
        shift=cut.shift,
        count=cut.count,
        min_norm=MIN_NORM,
    )


def reference(qkv, scale, table, shift):
    heads, dim = qkv.shape[-2:]
    attention = WindowAttention(heads * dim, head_dim=dim, window=WINDOW, shift=shift)
    return attention.attend(qkv, scale, table)


def value_and_gradients(function, tensors, gradient, shift):
    """[out, d_qkv, d_scale, d_table] of leaves with the values of ``tensors``."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = function(*leaves, shift)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def assert_near(found, expected, tolerance):
    """By norm, and everywhere finite."""
    for name, ours, theirs in zip(("out", "qkv", "scale", "table"), found, expected, strict=True):
        assert ours.shape == theirs.shape and ours.isfinite().all(), name
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm(), (
            f"{name}: {((ours.double() - theirs).norm() / theirs.norm()).item():.1e}"
        )


def compare(tensors, gradient, shift, roundings=None):
    """Kernel in the given type against the reference in float64 on the same values."""
    dtype = tensors[0].dtype
    found = value_and_gradients(kernel, tensors, gradient, shift)
    assert found[0].dtype == found[1].dtype == dtype
    expected = value_and_gradients(
        reference, [t.double() for t in tensors], gradient.double(), shift
    )
    assert_near(found, expected, (roundings or ROUNDINGS[dtype]) * torch.finfo(dtype).eps / 2)
    return found, expected


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(
    "images, height, width", [(1, 8, 8), (3, 16, 16), (1, 12, 20), (3, 5, 3), (1, 4, 13)]
)
def test_equals_reference(images, height, width, shift, device):
    *tensors, gradient = inputs(images, height, width, device)
    compare(tensors, gradient, shift)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, device):
    *tensors, gradient = inputs(1, 12, 9, device, dtype=dtype)
    compare(tensors, gradient, 4)


def test_more_images_than_a_unit_holds(device):
    *tensors, gradient = inputs(11, 3, 10, device, heads=1)
    compare(tensors, gradient, 4)


def test_blank_patches(device):
    *tensors, gradient = inputs(1, 8, 12, device)
    tensors[0][:, 2:6] = 0
    tensors[0][:, 6] *= MIN_NORM / 100  # shorter than counts as a direction
    compare(tensors, gradient, 4)


def test_large_logits(device):
    *tensors, gradient = inputs(1, 8, 12, device)
    tensors[0][..., :2, :, :] *= 1e4
    tensors[1].fill_(100)
    tensors[2].mul_(50)
    compare(
        tensors, gradient, 4, roundings=1000
    )  # logits of up to 300 carry as many roundings into the exponential


def test_any_strides(device):
    qkv, scale, table, gradient = inputs(2, 5, 9, device)
    expected = value_and_gradients(kernel, (qkv, scale, table), gradient, 4)
    qkv = qkv.permute(5, 2, 0, 3, 1, 4).contiguous().permute(2, 4, 1, 3, 5, 0)
    gradient = gradient.transpose(0, 2).contiguous().transpose(0, 2)
    table = table.t().contiguous().t()
    assert not (qkv.is_contiguous() or gradient.is_contiguous() or table.is_contiguous())
    found = value_and_gradients(kernel, (qkv, scale, table), gradient, 4)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    broadcast = kernel((leaf := qkv.requires_grad_()), scale, table, 4)
    assert torch.equal(
        torch.autograd.grad(broadcast.sum(), leaf)[0],
        torch.autograd.grad(kernel(leaf, scale, table, 4), leaf, torch.ones_like(broadcast))[0],
    )


def test_no_images(device):
    *tensors, gradient = inputs(0, 8, 12, device)
    out, *gradients = value_and_gradients(kernel, tensors, gradient, 4)
    assert out.shape == gradient.shape
    assert all(g.shape == t.shape and not g.any() for g, t in zip(gradients, tensors, strict=True))


def random_block(device):
    """A block that is no identity, and a packed batch of two grids with their mask."""
    layout = Layout((Group("a", "global", 2, 9, 12), Group("b", "local", 1, 4, 4)))
    block = SwinBlock(
        HEADS * DIM, FeedForward(HEADS * DIM, HEADS * DIM), head_dim=DIM, window=WINDOW, shift=4
    )
    initialise(block, seed=0)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in (block.norm1, block.norm2):
            norm.weight.normal_(generator=source)
    x = torch.randn(layout.tokens, HEADS * DIM, generator=source)
    return block.to(device), layout, x.to(device)


def run_block(block, layout, x, *, kernels, monkeypatch, checkpointed=False, dtype=None):
    """[y, dx, gradients of the parameters] with or without the kernel; asserts that this path was
    taken."""
    monkeypatch.setenv("SKYSENSE_KERNELS", kernels)
    monkeypatch.setattr(dispatch, "_decisions", {})
    x = x.detach().requires_grad_()
    mask = torch.ones(len(x), dtype=torch.bool, device=x.device)
    with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        y = (
            checkpoint(block, x, layout, mask, use_reentrant=False)[0]
            if checkpointed
            else block(x, layout, mask)[0]
        )
    gradients = torch.autograd.grad((y.double() ** 2).sum(), [x, *block.parameters()])
    assert dispatch.active()["window_attention"].startswith(
        "Triton" if kernels == "on" else "PyTorch"
    )
    return [y, *gradients]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_block_with_and_without(checkpointed, device, monkeypatch):
    block, layout, x = random_block(device)
    with_kernel = run_block(
        block, layout, x, kernels="on", checkpointed=checkpointed, monkeypatch=monkeypatch
    )
    without = run_block(block, layout, x, kernels="off", monkeypatch=monkeypatch)
    for ours, theirs in zip(with_kernel, without, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5 * theirs.abs().max().item())


def test_block_under_autocast(device, monkeypatch):
    block, layout, x = random_block(device)
    found = run_block(
        block,
        layout,
        x,
        kernels="on",
        checkpointed=True,
        dtype=torch.bfloat16,
        monkeypatch=monkeypatch,
    )
    exact = run_block(block, layout, x, kernels="off", monkeypatch=monkeypatch)
    plain = run_block(
        block, layout, x, kernels="off", dtype=torch.bfloat16, monkeypatch=monkeypatch
    )
    for ours, theirs, truth in zip(found, plain, exact, strict=True):
        assert (ours - truth).norm() <= 1.5 * (theirs - truth).norm() + 1e-3 * truth.norm()


@pytest.mark.parametrize(
    "change, reason", [({"dtype": torch.float64}, "float64"), ({"dim": 8}, "8 channels")]
)
def test_what_it_does_not_take_goes_to_the_reference(change, reason, device, monkeypatch):
    monkeypatch.setattr(dispatch, "_decisions", {})
    qkv, scale, table, _ = inputs(1, 8, 8, device, **change)
    reference(qkv, scale.to(qkv.dtype), table.to(qkv.dtype), 0)
    assert reason in dispatch.active()["window_attention"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("side, heads", [(128, 11), (64, 22), (50, 11)])
def test_real_sizes(side, heads, shift, dtype, device):
    *tensors, gradient = inputs(3, side, side, device, heads=heads, dim=32, dtype=dtype)
    found, _ = compare(tensors, gradient, shift)
    for _ in range(5):  # a result that moves is a race
        again = value_and_gradients(kernel, tensors, gradient, shift)
        assert all(torch.equal(a, b) for a, b in zip(again, found, strict=True))
