"""The look of all charts: sizes and colours for matplotlib."""

from matplotlib.colors import hsv_to_rgb

WIDTH = 11.0  # inches, all figures alike
COLOURS = {"hr": "#d1495b", "ms": "#2e8b57", "sar": "#3d6fb6", "fused": "#7b4fa3"}
PLAIN, FAINT, WARNING = "#37474f", "#b8c4cc", "#9a6200"
STYLE = {
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
    """The colour of a sensor or feature, the same in all charts; one that the table lacks is plain."""
    return COLOURS.get(name, PLAIN)


def class_colour(index: int) -> tuple[float, float, float]:
    """A colour of its own for each class, red green blue in 0..1: hues by the golden ratio, two
    brightnesses."""
    return tuple(map(float, hsv_to_rgb((index * 0.618034 % 1, 0.65, 0.95 if index % 2 else 0.7))))
