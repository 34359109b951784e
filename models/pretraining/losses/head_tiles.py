"""What the head loss does with one block of rows of logits, in plain PyTorch.

``models.kernels.head_loss`` has the same functions for a GPU. A block holds whole rows, (N, K).
Logits given to a function are used up: their memory may hold anything afterwards.
"""

import torch
from torch import Tensor

BLOCK = 1 << 23  # logits held at once: 32 MiB of float32
# prototypes a logsumexp over rows looks at together: its temporaries stay small beside the block
COLUMNS = 4096


def left(x: Tensor) -> Tensor:
    """Features (N, D) as ``product`` wants them."""
    return x


def right(x: Tensor) -> Tensor:
    """Prototypes (K, D) as ``product`` wants them."""
    return x


def product(features: Tensor, prototypes: Tensor) -> Tensor:
    """Logits (N, K) of ``left`` features and ``right`` prototypes."""
    return features @ prototypes.mT


def add_columns(sums: Tensor, logits: Tensor, scale: float, mask: Tensor) -> None:
    """Adds the rows in ``mask`` (N,) to sums (K,) kept as logarithms, in place: sum_n exp(scale
    logits_nk)."""
    rows = torch.zeros_like(logits[:, :1]).masked_fill_(~mask[:, None], -torch.inf)  # N 1
    for total, part in zip(sums.split(COLUMNS), logits.split(COLUMNS, dim=-1)):
        torch.logaddexp(total, torch.add(rows, part, alpha=scale).logsumexp(dim=0), out=total)


def normalise(
    mass: Tensor, logits: Tensor, scale: float, columns: Tensor, mask: Tensor, figures: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Softmax of the rows scale logits (N, K) + columns (K,); those in ``mask`` (N,) are added to
    ``mass`` (K,).

    Returns their log normalisers (N,), positive in the exponent, and if ``figures`` their entropies
    (N,) and the places (N,) of their largest.
    """
    x = torch.add(columns, logits, alpha=scale, out=logits)  # N K
    best = x.argmax(dim=-1) if figures else None  # N
    peak = x.amax(dim=-1, keepdim=True)  # N 1
    x.sub_(peak)
    weights = x.exp() if figures else x.exp_()  # N K
    total = weights.sum(dim=-1)  # N
    mass += mask.to(total.dtype).div(total) @ weights
    entropy = total.log() - torch.linalg.vecdot(weights, x) / total if figures else None  # N
    return total.log() + peak.squeeze(-1), entropy, best


def cross_entropy(
    logits: Tensor,
    teacher: Tensor,
    scale: float,
    teacher_scale: float,
    columns: Tensor,
    rows: Tensor,
    count: Tensor,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Cross-entropies (N,) of the student's softmax of scale logits (N, K), and their gradient for
    ``pull_back``.

    The targets of row n are sum_m exp(teacher_scale teacher_nmk + columns_k + rows_nm): ``teacher``
    (N, M, K), ``columns`` (K,), ``rows`` (N, M), -inf for no partner. ``count`` (N,): the partners,
    which is what the targets of a row sum to.
    """
    targets = (
        torch.add(columns, teacher, alpha=teacher_scale, out=teacher).add_(rows[..., None]).exp_()
    )  # N M K
    targets = targets.squeeze(1) if targets.shape[1] == 1 else targets.sum(dim=1)  # N K
    inner = torch.linalg.vecdot(logits, targets)  # N
    x = logits.mul_(scale)  # N K
    peak = x.amax(dim=-1, keepdim=True)  # N 1
    weights = x.sub_(peak).exp_()  # N K
    total = weights.sum(dim=-1)  # N
    values = (total.log() + peak.squeeze(-1)) * count - scale * inner  # N
    if not gradient:
        return values, None
    return values, weights.mul_((scale * count / total)[:, None]).sub_(targets, alpha=scale)


def pull_back(gradient: Tensor, features: Tensor, prototypes: Tensor, total: Tensor) -> Tensor:
    """Gradient (N, D) of the ``left`` features; that of the ``right`` prototypes is added to
    ``total`` (K, D)."""
    torch.addmm(total, gradient.mT, features, out=total)
    return gradient @ prototypes
