"""Patches of one sensor's image -> tokens of the shared backbone."""

from torch import Tensor, nn

from models.errors import ModelError


class Tokenizer(nn.Module):
    """Linear embedding of patch x patch pixels, one a modality: the only layer that knows a
    sensor's bands.

    A strided convolution written as one matrix product; ``projection.weight`` is the flattened
    convolution kernel, its columns in the order band, row, column. Parameters at full size: 17,248
    / 56,672 / 11,616 (table 6).
    """

    def __init__(self, bands: int, width: int, patch: int):
        super().__init__()
        self.bands = bands
        self.patch = patch
        self.projection = nn.Linear(bands * patch**2, width)

    def forward(self, images: Tensor) -> Tensor:
        """(images, C, H, W) of any float type -> (images, H/p x W/p, D) row by row, in the type of
        the weights.

        Raises ModelError for another number of bands or sides that are no multiples of the patch.
        """
        if (
            images.dim() != 4
            or images.shape[1] != self.bands
            or images.shape[2] % self.patch
            or images.shape[3] % self.patch
        ):
            raise ModelError(
                f"tokenizer: expected images of shape (images, {self.bands}, H, W) with H and W multiples "
                f"of {self.patch}, found {tuple(images.shape)}; check the modality or crop the image"
            )
        x = images.to(self.projection.weight.dtype)  # images C H W
        x = x.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))  # images C h p w p
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # images hw Cpp
        return self.projection(x)  # images hw D
