"""Measured statistics in the form that the registry of sensors takes."""

import numpy as np

from data.audit.pixels import Pixels
from data.tiles.modalities import MODALITIES


def registry_lines(pixels: Pixels) -> str:
    """Write means and deviations of the valid pixels as lines of ``data/tiles/modalities.py``.

    They are divided by each sensor's scale.
    """
    lines = []
    for name, moments in pixels.moments.items():
        scale = MODALITIES[name].scale
        if not moments.count:
            lines.append(f"# {name}: no valid pixel")
            continue
        lines.append(f"# {name}: {moments.count} valid pixels")
        lines.append(f"mean={_as_tuple(moments.mean / scale)},")
        lines.append(f"std={_as_tuple(moments.std / scale)},")
    return "\n".join(lines)


def _as_tuple(values: np.ndarray) -> str:
    """Numbers with six digits, as a tuple of Python."""
    return str(tuple(float(f"{value:.6g}") for value in values))
