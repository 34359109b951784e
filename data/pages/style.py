"""The look of all charts: sizes and colours for matplotlib."""

from typing import Any

from matplotlib.typing import RcKeyType

from data.tiles.modalities import MODALITIES

WIDTH = 11.0  # inches, the width of every figure
FUSED = "#7b4fa3"  # the fused feature
PLAIN = "#37474f"
FAINT = "#b8c4cc"
WARNING = "#9a6200"
STYLE: dict[RcKeyType, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "grid.color": "#e6eaed",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#90a0a8",
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
    "image.interpolation": "nearest",
    "figure.dpi": 110,
}


def colour(name: str) -> str:
    """The colour of a sensor or feature in all charts; plain for a name without one."""
    if name == "fused":
        return FUSED
    if name in MODALITIES:
        return MODALITIES[name].display.colour
    return PLAIN
