"""Computations of the head loss on one block of rows of logits, in plain PyTorch.

``models.kernels.head_loss`` has the same functions for a GPU; ``row_blocks.select_tiles`` chooses.
A block holds whole rows, (N, K). Logits given to a function are used as scratch space: their memory
may hold anything afterwards.
"""

import torch
from torch import Tensor

# Logits held at once. On a CPU 32 MiB of float32 stay near its caches. A GPU is done with a block
# of that size before the host has launched the next one, so there it has 512 MiB.
BLOCK = 1 << 23
GPU_BLOCK = 1 << 27
# Prototypes that a logsumexp over rows reads together on a CPU: its temporaries stay small beside
# the block.
COLUMNS = 4096


def block_size(device: torch.device) -> int:
    """Logits held at once on a device."""
    if device.type == "cpu":
        return BLOCK
    return GPU_BLOCK


def left(x: Tensor) -> Tensor:
    """Features (N, D) in the form that ``product`` takes."""
    return x


def right(x: Tensor) -> Tensor:
    """Prototypes (K, D) in the form that ``product`` takes."""
    return x


def product(features: Tensor, prototypes: Tensor) -> Tensor:
    """Logits (N, K) of ``left`` features and ``right`` prototypes."""
    return features @ prototypes.mT


def add_columns(sums: Tensor, logits: Tensor, *, scale: float, mask: Tensor) -> None:
    """Add sum_n exp(scale logits_nk) over the rows in ``mask`` to ``sums``, in place.

    Args:
        sums: (K,) column sums, kept as logarithms.
        logits: (N, K).
        scale: one over the temperature.
        mask: (N,) bool.
    """
    rows = torch.zeros_like(logits[:, :1]).masked_fill_(~mask[:, None], -torch.inf)  # N 1
    columns = COLUMNS if sums.device.type == "cpu" else len(sums)
    for total, part in zip(sums.split(columns), logits.split(columns, dim=-1)):
        torch.logaddexp(total, torch.add(rows, part, alpha=scale).logsumexp(dim=0), out=total)


def normalise(
    mass: Tensor,
    logits: Tensor,
    *,
    scale: float,
    columns: Tensor,
    mask: Tensor,
    figures: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Apply softmax to the rows scale logits + columns, and add those in ``mask`` to ``mass``.

    Args:
        mass: (K,) column sums of the normalised rows, updated in place.
        logits: (N, K).
        scale: one over the temperature.
        columns: (K,) added to every row.
        mask: (N,) bool.
        figures: whether to compute entropies and largest entries too.

    Returns:
        Log normalisers (N,), positive in the exponent; and with ``figures`` the entropies (N,) and
        the indices (N,) of the largest entries, otherwise None.
    """
    x = torch.add(columns, logits, alpha=scale, out=logits)  # N K
    best = None
    if figures:
        best = x.argmax(dim=-1)  # N
    peak = x.amax(dim=-1, keepdim=True)  # N 1
    x.sub_(peak)
    weights = x.exp() if figures else x.exp_()  # N K; the entropies need x too
    total = weights.sum(dim=-1)  # N
    mass += mask.to(total.dtype).div(total) @ weights
    entropy = None
    if figures:
        entropy = total.log() - torch.linalg.vecdot(weights, x) / total  # N
    return total.log() + peak.squeeze(-1), entropy, best


def cross_entropy(
    logits: Tensor,
    teacher: Tensor,
    *,
    scale: float,
    teacher_scale: float,
    columns: Tensor,
    rows: Tensor,
    weight: Tensor,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy of each row of the student with its targets, and its gradient.

    The targets of row n are sum_m exp(teacher_scale teacher_nmk + columns_k + rows_nm).

    Args:
        logits: (N, K) of the student.
        teacher: (N, M, K) logits of the teacher's rows that each row is paired with.
        scale: one over the student's temperature.
        teacher_scale: one over the teacher's temperature.
        columns: (K,) log scalings of the targets.
        rows: (N, M) log scalings of the targets, -inf where there is no partner.
        weight: (N,) sum of the targets of each row.
        gradient: whether to compute the gradient.

    Returns:
        Cross-entropies (N,), and their gradient for ``pull_back`` or None.
    """
    targets = torch.add(columns, teacher, alpha=teacher_scale, out=teacher)  # N M K
    targets = targets.add_(rows[..., None]).exp_()  # N M K
    targets = targets.squeeze(1) if targets.shape[1] == 1 else targets.sum(dim=1)  # N K
    inner = torch.linalg.vecdot(logits, targets)  # N
    x = logits.mul_(scale)  # N K
    peak = x.amax(dim=-1, keepdim=True)  # N 1
    weights = x.sub_(peak).exp_()  # N K
    total = weights.sum(dim=-1)  # N
    values = (total.log() + peak.squeeze(-1)) * weight - scale * inner  # N
    if not gradient:
        return values, None
    return values, weights.mul_((scale * weight / total)[:, None]).sub_(targets, alpha=scale)


def pull_back(gradient: Tensor, features: Tensor, prototypes: Tensor, *, total: Tensor) -> Tensor:
    """Gradient of the features; the gradient of the prototypes is added to ``total``.

    Args:
        gradient: (N, K) of the logits, of ``cross_entropy``.
        features: ``left`` features of the block.
        prototypes: ``right`` prototypes.
        total: (K, D) gradient of the prototypes, updated in place.

    Returns:
        (N, D).
    """
    torch.addmm(total, gradient.mT, features, out=total)
    return gradient @ prototypes
