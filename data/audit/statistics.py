"""Measured statistics in the form that the registry of sensors takes."""

import numpy as np

from data.audit.pixels import Pixels
from data.tiles.modalities import MODALITIES


def registry_lines(pixels: Pixels) -> str:
    """Means and deviations of the valid pixels, divided by each sensor's scale, as lines of
    ``data/tiles/modalities.py``."""
    lines = []
    for name, moments in pixels.moments.items():
        scale = MODALITIES[name].scale
        if not moments.count:
            lines.append(f"# {name}: no valid pixel")
            continue
        lines += [
            f"# {name}: {moments.count} valid pixels",
            f"mean={_tuple(moments.mean / scale)},",
            f"std={_tuple(moments.std / scale)},",
        ]
    return "\n".join(lines)


def _tuple(values: np.ndarray) -> str:
    """Numbers with six digits, as a tuple of Python."""
    return str(tuple(float(f"{value:.6g}") for value in values))
