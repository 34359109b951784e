"""Dense image-text alignment (equation 7): pulls each labelled pixel towards its class name's text.

Equation 7 as printed has the logarithm outside its sum. Here it is the mean of -log p over the
labelled pixels.
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
    """Views of one size with their labels.

    The side L of the labels may differ from the side g of the features: a pixel takes the feature
    of the cell that its centre lies in.
    """

    features: Tensor  # B V g g D, projected to the width of the text
    valid: Tensor  # B V g g bool
    labels: Tensor  # B V L L int64, class index, -1 = no label


def image_text(
    views: Mapping[str, LabelledViews], text: Tensor, *, temperature: float, reducer: Reducer
) -> Tensor:
    """Mean loss over the labelled pixels in valid cells of all views of the global batch.

    Args:
        views: labelled views by view size. Labels must be below K; call ``check_labels`` while they
            are in host memory, since a check on a device would make the host wait.
        text: (K, D) text features, one a class. Both sides are L2-normalised here.
        temperature: divides the cosines.
        reducer: collectives over the global batch.

    Returns:
        () this rank's share; zero with zero gradients if no rank has a label.
    """
    text = F.normalize(text.float(), dim=-1)  # K D
    total = text.new_zeros(())
    count = text.new_zeros(())
    for features, valid, labels in views.values():
        counts = class_counts(labels, side=valid.shape[-1], classes=text.shape[0])  # B V g g K
        counts = counts.where(valid[..., None], 0.0)  # B V g g K
        features = F.normalize(features.float().where(valid[..., None], 0.0), dim=-1)  # B V g g D
        log_p = (features @ text.T / temperature).log_softmax(dim=-1)  # B V g g K
        # All pixels of a cell share its feature: their sum is the class counts times log p.
        total = total - (counts * log_p).sum()
        count = count + counts.sum()
    return share(total, count, reducer)


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuse labels without a text feature. Call it on labels in host memory.

    Args:
        labels: class indices of any shape, -1 = no label.
        classes: number of text features.

    Raises:
        ModelError: a label is ``classes`` or more.
    """
    if labels.numel() == 0:
        return
    highest = int(labels.max())
    if highest >= classes:
        raise ModelError(
            f"image-text alignment: expected labels below {classes}, found {highest}; "
            "the class table of the data and the text features differ"
        )


def class_counts(labels: Tensor, *, side: int, classes: int) -> Tensor:
    """Count the pixels of each class in each cell.

    Args:
        labels: (B, V, L, L) int64, -1 = no label.
        side: cells along a side.
        classes: number of classes K.

    Returns:
        (B, V, side, side, K) float32.
    """
    batch, views, size = labels.shape[:3]
    # Cell of each pixel's centre, in integers so that nothing is rounded.
    cell = (2 * torch.arange(size, device=labels.device) + 1) * side // (2 * size)  # L
    view = torch.arange(batch * views, device=labels.device).view(batch, views, 1, 1)
    index = ((view * side + cell[:, None]) * side + cell) * classes + labels  # B V L L
    bins = batch * views * side * side * classes
    index = index.where(labels >= 0, bins).flatten()  # BVLL; the last bin is for no label
    counts = index.new_zeros(bins + 1)
    # Unlike bincount, scatter_add_ does not make the host wait for the device.
    counts.scatter_add_(0, index, torch.ones_like(index))
    return counts[:-1].float().view(batch, views, side, side, classes)
