"""What all tiles of a source share: an offset, a wrong scale, exchanged bands.

A fault of a whole source makes its tiles each other's neighbours, so that none stands out. The
source is then compared with the others as if it were one tile.
"""

from collections.abc import Iterator

import numpy as np

from data.audit.measure.fault import LOOK, Fault
from data.audit.rules.comparison import EXCHANGED, LEAST_TILES, Others, logarithms
from data.audit.rules.reference import Rows
from data.audit.rules.tile_rules import ADDED, OFFSET
from data.tiles.modalities import MODALITIES
from data.tiles.sensor import BYTE, REFLECTANCE

LEAST_OF_SOURCE = 5  # tiles, for medians that are those of a source
NOWHERE_BELOW = 0.9  # share of the tiles without a dark pixel
BLUE_OVER_RED = 0.05  # natural logarithm of the median ratio


def source_faults(name: str, rows: Rows) -> Iterator[tuple[int, Fault]]:
    """What the tiles of each source have in common.

    Args:
        name: key of the sensor.
        rows: of all its tiles.

    Yields:
        Source and fault.
    """
    sensor = MODALITIES[name]
    others = Others(name, rows)
    for source, own in sorted(others.by_source.items()):
        if len(own) < LEAST_OF_SOURCE:
            continue
        faults = others.without(source).source_faults(own)
        if sensor.unit == REFLECTANCE:
            faults = faults or _raised(name, own)
        if sensor.unit == BYTE:
            faults = faults or _blue(name, own)
        for fault in faults:
            yield source, fault


def _raised(name: str, own: np.ndarray) -> list[Fault]:
    """Hardly a tile has a pixel below the offset of Sentinel-2's baseline 04.00."""
    above = float((own["low"].min(1) >= ADDED).mean())
    if above < NOWHERE_BELOW:
        return []
    reason = (
        f"{100 * above:.0f} % of its tiles have no pixel below {ADDED} in any band; was the offset"
        " of baseline 04.00 left in? A bright desert shows the same"
    )
    return [Fault(OFFSET, name, LOOK, reason, above)]


def _blue(name: str, own: np.ndarray) -> list[Fault]:
    """Land is redder than blue in most images."""
    sensor = MODALITIES[name]
    if sensor.display.true_colour is None or len(own) < LEAST_TILES:
        return []
    red = sensor.bands.index(sensor.display.true_colour[0])
    blue = sensor.bands.index(sensor.display.true_colour[2])
    spectra = logarithms(sensor, own["median"].astype(np.float64))
    ratio = float(np.median(spectra[:, red] - spectra[:, blue]))
    if ratio > -BLUE_OVER_RED:
        return []
    reason = (
        f"blue is {np.exp(-ratio):.2f} x red in the median tile, expected less than red over land;"
        " were the channels read in the order B, G, R?"
    )
    return [Fault(EXCHANGED, name, LOOK, reason, -ratio)]
