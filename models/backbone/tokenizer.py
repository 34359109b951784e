"""Patches of one sensor's images -> tokens of the shared backbone."""

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.initialise import truncated_normal


class PatchProjection(nn.Linear):
    """The linear layer of a tokenizer.

    Its bias is the token of a patch without a valid pixel, and nearly that of a patch without
    contrast at the sensor's mean. Started at zero, both would be zero vectors, for which every
    layer norm on their way multiplies the gradient by 1 / sqrt(its epsilon) = 316.
    """

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill weight or bias."""
        truncated_normal(tensor, generator)


class Tokenizer(nn.Module):
    """Linear embedding of patch x patch pixels, one a modality.

    It is the only layer that knows a sensor's bands. A strided convolution, written as one matrix
    product: ``projection.weight`` is the flattened convolution kernel, its columns in the order
    band, row, column. Parameters at full size: 17,248 / 56,672 / 11,616 (table 6).
    """

    def __init__(self, bands: int, width: int, patch: int):
        super().__init__()
        self.bands = bands
        self.patch = patch
        self.projection = PatchProjection(bands * patch**2, width)

    def forward(self, images: Tensor) -> Tensor:
        """Embed the patches of some images.

        Args:
            images: (images, C, H, W) of any float type.

        Returns:
            Tokens (images, H/p x W/p, D) row by row, in the type of the weights.

        Raises:
            ModelError: The number of bands is another, or the sides are no multiples of the patch.
        """
        self._check(images)
        x = images.to(self.projection.weight.dtype)  # images C H W
        x = x.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))  # images C h p w p
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # images hw Cpp
        return self.projection(x)  # images hw D

    def _check(self, images: Tensor) -> None:
        fits = (
            images.dim() == 4
            and images.shape[1] == self.bands
            and images.shape[2] % self.patch == 0
            and images.shape[3] % self.patch == 0
        )
        if not fits:
            raise ModelError(
                f"tokenizer: expected images of shape (images, {self.bands}, H, W) with H and W "
                f"multiples of {self.patch}, found {tuple(images.shape)}; check the modality or "
                "crop the image"
            )
