"""From decoded pixels to colours: how every picture of a sample shows sensors, labels and views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from torch import Tensor

from data.pages.class_colours import Colour
from data.stream.decode import Decoded
from data.stream.sample import CutSample, CutView, ViewName
from data.stream.settings import GLOBAL
from data.stream.views import by_pixel
from data.tiles.modalities import MODALITIES, Modality
from data.tiles.tile import UNLABELLED

INVALID = np.array([0.93, 0.90, 0.95])  # a pale grey-violet that no land cover has
VIEW_COLOURS = (
    "#e4572e",
    "#17a398",
    "#f3a712",
    "#669bbc",
    "#a8c686",
    "#9a6fb0",
    "#d88c9a",
    "#8d99ae",
)
# Corners (u, v, 1) of a view, beginning with the one shown top left.
CORNERS = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])


@dataclass(frozen=True)
class Picture:
    """One frame of a sensor."""

    pixels: np.ndarray  # C H W in the archive's unit, divided by the sensor's scale
    valid: np.ndarray  # H W bool


def view_picture(view: CutView, modality: str, frame: int) -> Picture:
    """One frame of a view, with the colour changes of training."""
    pixels = view.coloured(modality)[frame].numpy()  # C H W
    return Picture(pixels, view.valid[modality][frame].numpy())


def tile_picture(tile: Decoded, modality: str, frame: int) -> Picture:
    """One frame of a whole tile."""
    pixels = tile.images(modality)[frame].numpy() / MODALITIES[modality].scale  # C H W
    valid = tile.valid[modality][frame]  # N N
    return Picture(pixels, by_pixel(valid, pixels.shape[-1] // len(valid)).numpy())


def paint(modality: str, pictures: Sequence[Picture]) -> list[np.ndarray]:
    """Colours H W 3 in [0, 1] of some pictures of one sensor.

    Series are stretched from their 2nd to their 98th percentile, all pictures alike. Red, green and
    blue of SAR are VV, VH and their difference. Invalid pixels are pale.
    """
    sensor = MODALITIES[modality]
    colours = [_channels(sensor, picture.pixels) for picture in pictures]  # 3 H W
    low = np.zeros(3)
    high = np.ones(3)
    if sensor.display.least_span is not None:
        valid_pixels = [image[:, picture.valid] for image, picture in zip(colours, pictures)]
        least = sensor.display.least_span / sensor.scale
        low, high = _stretch(np.concatenate(valid_pixels, 1), least=least)
    painted = []
    for image, picture in zip(colours, pictures):
        shades = np.clip((image.transpose(1, 2, 0) - low) / (high - low), 0, 1)  # H W 3
        painted.append(np.where(picture.valid[..., None], shades, INVALID))
    return painted


def _channels(sensor: Modality, pixels: np.ndarray) -> np.ndarray:
    """Red, green and blue of a sensor's bands: C H W -> 3 H W.

    Without a true colour they are the first two bands and their difference; one band is grey.
    """
    if sensor.display.true_colour is not None:
        return pixels[[sensor.bands.index(band) for band in sensor.display.true_colour]]
    if len(sensor.bands) == 1:
        return np.repeat(pixels, 3, axis=0)
    return np.stack([pixels[0], pixels[1], pixels[0] - pixels[1]])


def _stretch(pixels: np.ndarray, *, least: float) -> tuple[np.ndarray, np.ndarray]:
    """The values of each channel (3, n) that become black and white.

    Their difference is the same for all channels, as grey would turn into colours otherwise.
    """
    low = np.zeros(3)
    high = np.ones(3)
    if pixels.size:
        low, high = np.percentile(pixels, (2, 98), axis=1)
    span = max((high - low).max(), least)
    middle = (low + high) / 2
    return middle - span / 2, middle + span / 2


def paint_classes(labels: np.ndarray, colours: Mapping[int, Colour]) -> np.ndarray:
    """Class indices H W -> colours H W 3; white where unlabelled.

    Args:
        labels: H W uint8.
        colours: of every class in the labels.
    """
    table = np.ones((UNLABELLED + 1, 3))
    for index, colour in colours.items():
        table[index] = colour
    return table[labels]


def draw_tile(axis: Axes, sample: CutSample, colours: dict[ViewName, str]) -> tuple[str, int]:
    """Draw a tile with the rectangles of its views; a dot marks the corner shown top left.

    Global views have solid lines, local ones dashed lines.

    Args:
        axis: where to draw, in 10 m cells.
        sample: tile and views.
        colours: of the views to draw.

    Returns:
        Sensor and frame that are shown: the high resolution, else the series' clearest frame.
    """
    tile = sample.tile
    modality = next(iter(tile.valid))
    if tile.hr is not None:
        modality = "hr"
    frame = clearest_frame(tile.valid[modality])
    (image,) = paint(modality, [tile_picture(tile, modality, frame)])
    axis.imshow(image, extent=(0, tile.cells, tile.cells, 0))
    for number, (name, colour) in enumerate(colours.items(), 1):
        corners = CORNERS @ sample.view(name).affine.T  # 4 2
        inset = number * tile.cells / 250  # so that equal edges stay apart
        corners += inset * np.sign(corners.mean(0) - corners)
        outline = Polygon(corners, fill=False, edgecolor=colour, linewidth=2.2)
        outline.set_linestyle(line_style(name))
        axis.add_patch(outline)
        axis.plot(*corners[0], "o", color=colour, markersize=5, clip_on=False)
    axis.set(xlim=(0, tile.cells), ylim=(tile.cells, 0), xlabel="10 m cells")
    axis.grid(False)
    return modality, frame


def clearest_frame(valid: Tensor) -> int:
    """The frame with most valid cells, the first among equals: T n n bool -> index."""
    return int(valid.sum((1, 2)).argmax())


def line_style(name: ViewName) -> Literal["-", "--"]:
    """How the outline of a view is drawn."""
    if name.size == GLOBAL:
        return "-"
    return "--"


def outline_axis(axis: Axes, colour: str, style: Literal["-", "--"] = "-") -> None:
    """Take the ticks away and draw a view's colour around the axis."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5, linestyle=style)
