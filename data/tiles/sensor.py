"""What the project knows of one sensor."""

from dataclasses import dataclass, field

from data.errors import InputError

CELL_METRES = 10.0  # side of a tile's cells
HR_PIXELS = 32  # high-resolution pixels along a cell: 0.3125 m
IMAGE = "hr"  # key of the sensor without a time axis

# Units of stored numbers to which the readers know the way from other units.
BYTE = "byte"
REFLECTANCE = "reflectance x 1e4"
DECIBEL = "dB"

# What to do about a sensor without statistics.
UNMEASURED = (
    "which nobody has measured; measure them with skysense audit SHARDS --write_statistics FILE "
    "and name FILE in skysense.data.sensors"
)


@dataclass(frozen=True, kw_only=True)
class Display:
    """How pictures and charts show a sensor.

    Attributes:
        colour: of its lines and bars in charts.
        true_colour: the bands for red, green and blue; None where the eye would see none of it.
        least_span: the smallest range of numbers that a picture stretches from black to white, in
            the archive's unit; None: black is 0 and white the scale.
    """

    colour: str
    true_colour: tuple[str, str, str] | None = None
    least_span: float | None = None


@dataclass(frozen=True, kw_only=True)
class CatalogueNames:
    """How STAC catalogues name a sensor and its bands.

    Attributes:
        platforms: what the platform or constellation of an item contains, in lower case.
        bands: names in lower case, here or in files -> the sensor's own, which need not be listed.
        classification: the asset with the codes of the scene classification, if there is one.
    """

    platforms: tuple[str, ...] = ()
    bands: dict[str, str] = field(default_factory=dict)
    classification: str | None = None


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One sensor (PAPER, section 1).

    Attributes:
        key: its name in archives, shards, settings and batches.
        title: its name in reports, with the unit.
        bands: names in the order of the channels.
        gsd: metres a pixel, to which its files are resampled: a whole number of pixels along a
            cell.
        unit: of the numbers in the archive.
        scale: stored numbers are divided by this before ``mean`` and ``std``.
        mean: of each band; empty while nobody has measured it.
        std: standard deviation of each band; empty as ``mean``.
        dtype: as stored in the archive.
        step: shards hold whole multiples of it; None: the numbers as they are.
        nodata: a pixel with this number in any band is no observation, as is one that is not
            finite. NaN: these alone; None: these, and the sensor's files have a mask instead.
        display: how pictures and charts show it.
        catalogue: how STAC catalogues name it.
    """

    key: str
    title: str
    bands: tuple[str, ...]
    gsd: float
    unit: str
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: str
    step: float | None = None
    nodata: float | None
    display: Display
    catalogue: CatalogueNames = CatalogueNames()

    def __post_init__(self) -> None:
        bands = len(self.bands)
        if not len(self.mean) == len(self.std) or len(self.mean) not in (0, bands):
            raise InputError(
                f"sensor {self.key!r}: expected a mean and a std for each of {bands} bands, found "
                f"{len(self.mean)} and {len(self.std)}"
            )

    @property
    def pixels(self) -> int:
        """Pixels along one 10 m cell."""
        return round(CELL_METRES / self.gsd)

    @property
    def is_measured(self) -> bool:
        """Whether mean and std of its bands are known."""
        return bool(self.mean)
