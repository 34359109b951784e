"""Memory that an operator of torch takes on a GPU and gives back before it ends.

The meta device takes none. The formulas were found on torch 2.11's own operators for CUDA, under
deterministic algorithms, by ``tests/null_card``. What is below a MiB for a whole batch is left out.
"""

from collections.abc import Callable

from torch import Tensor

SORTED = 50  # bytes an element of an operator that sorts its indices to be deterministic
QUERIES = 128  # flash attention sums the gradient of so many queries at once
CHANNELS = 32  # and of so many channels
EFFICIENT = 64  # the same two for attention with a mask
ROWS = 1024  # of a matrix, that one program sums, at least
PARTIAL = 128 * 4  # bytes that it writes for a column
FLOAT32 = 4  # bytes


def temporary(name: str, args: tuple, result: Tensor | tuple) -> int:
    """Bytes that an operator takes beside its results.

    Args:
        name: Of the operator, as in its schema.
        args: What it was called with.
        result: What it returned.
    """
    formula = FORMULAS.get(name)
    if formula is None:
        return 0
    return formula(args, result)


def _sort(args: tuple, _) -> int:
    return 24 * args[0].numel()


def _sorted_places(args: tuple, _) -> int:
    return SORTED * args[2].numel()


def _sorted_rows(args: tuple, _) -> int:
    """index_add(x, dimension, index, source): the source is copied in the order of its rows."""
    return args[3].nbytes + SORTED * args[2].numel()


def _sum_rows(args: tuple, result) -> int:
    """A sum over the leading axes: the partial sums of all programs."""
    x = args[0]
    columns = result.numel()
    if x.dim() < 2 or columns < PARTIAL // FLOAT32 or x.stride(-1) != 1 or columns % x.shape[-1]:
        return 0
    programs = x.numel() // columns // ROWS
    return programs * columns * PARTIAL


def _flash_gradient(args: tuple, _) -> int:
    """The gradient of the queries in float32, and a number for each of them."""
    batch, heads, queries, channels = args[1].shape
    return FLOAT32 * batch * heads * _up(queries, QUERIES) * (_up(channels, CHANNELS) + 1)


def _efficient_gradient(args: tuple, _) -> int:
    batch, heads, queries, channels = args[1].shape
    padded = _up(queries, EFFICIENT) * _up(channels, EFFICIENT)
    return FLOAT32 * batch * heads * (padded + queries)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


FORMULAS: dict[str, Callable[[tuple, Tensor | tuple], int]] = {
    "aten::sort": _sort,
    "aten::scatter_": _sorted_places,
    "aten::scatter_add": _sorted_places,
    "aten::index_add": _sorted_rows,
    "aten::sum": _sum_rows,
    "aten::_scaled_dot_product_flash_attention_backward": _flash_gradient,
    "aten::_scaled_dot_product_efficient_attention_backward": _efficient_gradient,
}
