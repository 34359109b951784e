"""An image without colour and where it is valid."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MaskedImage:
    """Brightness of a square tile. An image has a whole number of pixels P along a cell."""

    image: np.ndarray  # P*N P*N
    valid: np.ndarray  # N N bool, by cell

    @property
    def cells(self) -> int:
        """Cells along a side."""
        return len(self.valid)


def enlarge(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Spread a mask over cells (h, w) to pixels (H, W), where H and W are multiples of h and w."""
    rows = shape[0] // mask.shape[0]
    columns = shape[1] // mask.shape[1]
    return np.kron(mask, np.ones((rows, columns), bool))
