"""Dense image-text alignment (equation 7): every labelled pixel's feature finds its class name's
text feature.

Equation 7 as printed has the logarithm outside its sum; meant is the mean over the labelled pixels
of -log p.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelError
from models.pretraining.losses.dino import share
from models.reducer import Reducer


class LabelledViews(NamedTuple):
    """Views of one size with their labels. L need not equal g: a pixel takes the feature of the
    cell it lies in."""

    features: Tensor  # B V g g D, projected to the width of the text
    valid: Tensor  # B V g g bool
    labels: Tensor  # B V L L int64, class index, -1 = no label


def image_text(
    views: Mapping[str, LabelledViews], text: Tensor, temperature: float, reducer: Reducer
) -> Tensor:
    """Mean over the labelled pixels, in valid cells, of all views of the global batch: this rank's
    share.

    ``text`` (K, D). Both sides are L2-normalised here. Zero with zero gradients if nothing is
    labelled anywhere. Labels are below K: ``check_labels`` says so before they are on a device that
    would have to be waited for.
    """
    text = F.normalize(text.float(), dim=-1)  # K D
    total, count = text.new_zeros(()), text.new_zeros(())
    for features, valid, labels in views.values():
        counts = class_counts(labels, valid.shape[-1], text.shape[0]).where(
            valid[..., None], 0.0
        )  # B V g g K
        features = F.normalize(features.float().where(valid[..., None], 0.0), dim=-1)  # B V g g D
        log_p = (features @ text.T / temperature).log_softmax(dim=-1)  # B V g g K
        # the pixels of a cell share its feature, so their sum is the class counts times log p
        total = total - (counts * log_p).sum()
        count = count + counts.sum()
    return share(total, count, reducer)


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ModelError for a label of ``classes`` or more. To be asked of labels in the host's
    memory."""
    highest = int(labels.max()) if labels.numel() else -1
    if highest >= classes:
        raise ModelError(
            f"image-text alignment: expected labels below {classes}, found {highest}; "
            "the class table of the data and the text features differ"
        )


def class_counts(labels: Tensor, side: int, classes: int) -> Tensor:
    """Pixels of each class in each cell: labels (B, V, L, L) int64, -1 ignored -> (B, V, side,
    side, K) float32."""
    batch, views, size = labels.shape[:3]
    # the cell in which a pixel's centre lies, without rounding
    cell = (2 * torch.arange(size, device=labels.device) + 1) * side // (2 * size)  # L
    view = torch.arange(batch * views, device=labels.device).view(batch, views, 1, 1)
    index = ((view * side + cell[:, None]) * side + cell) * classes + labels  # B V L L
    bins = batch * views * side * side * classes
    index = index.where(labels >= 0, bins).flatten()  # the last bin collects what has no label
    counts = index.new_zeros(bins + 1)
    counts.scatter_add_(
        0, index, torch.ones_like(index)
    )  # unlike bincount it need not wait for the device
    return counts[:-1].float().view(batch, views, side, side, classes)
