"""Typed settings of the input pipeline; the defaults are the paper preset."""

from dataclasses import dataclass, field

from data.storage.settings import StoreSettings
from data.tiles.modalities import MODALITIES
from data.tiles.splits import ALL, SPLITS, TRAIN
from data.tiles.tile import LABEL_PIXELS

# Names of the two view sizes, in batches, features and losses.
GLOBAL = "global"
LOCAL = "local"


@dataclass(frozen=True)
class ViewSize:
    """The views of one size."""

    count: int  # views a sample
    pixels: dict[str, int]  # along a side, by sensor
    scale: tuple[float, float]  # share of the tile's area

    @property
    def label_pixels(self) -> int:
        """Pixels of the labels along a side of a view.

        Where the finest sensor shows its pixels at their own size, the labels do so too. They have
        no more pixels than a sensor.
        """
        sides = []
        for modality, side in self.pixels.items():
            finest = max(LABEL_PIXELS, MODALITIES[modality].pixels)  # pixels a cell
            sides.append(side * LABEL_PIXELS // finest)
        return max([1, *sides])


@dataclass(frozen=True)
class ViewSettings:
    """Geometry of the views (2 global and 6 local; supplement, section C).

    All sensors and the labels of a view show one rectangle of the ground, each with its own number
    of pixels. Sensors that are not read may have sizes too.
    """

    global_views: int = 2
    local_views: int = 6
    # pixels along a side of a view, by sensor
    global_pixels: dict[str, int] = field(default_factory=lambda: {"hr": 384, "ms": 24, "sar": 24})
    local_pixels: dict[str, int] = field(default_factory=lambda: {"hr": 128, "ms": 8, "sar": 8})
    global_scale: tuple[float, float] = (0.32, 1.0)  # share of the tile's area
    local_scale: tuple[float, float] = (0.05, 0.32)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flips: bool = True
    quarter_turns: bool = True

    @property
    def sizes(self) -> dict[str, ViewSize]:
        """Number, side and area share of the global and the local views, in this order."""
        return {
            GLOBAL: ViewSize(self.global_views, self.global_pixels, self.global_scale),
            LOCAL: ViewSize(self.local_views, self.local_pixels, self.local_scale),
        }

    @property
    def native_cells(self) -> int:
        """Side of the largest ground, in 10 m cells, of which a global view loses no pixel.

        It is that of the sensor which keeps most: no other one shows more cells pixel by pixel.
        """
        sides = []
        for modality, side in self.global_pixels.items():
            sides.append(side // MODALITIES[modality].pixels)
        return max([1, *sides])

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        for name, size in self.sizes.items():
            for modality, side in size.pixels.items():
                place = f"views.{name}_pixels.{modality}"
                if modality not in MODALITIES:
                    return f"{place}: no known sensor, expected some of {sorted(MODALITIES)}"
                if side < 1:
                    return f"{place}: expected at least 1 pixel along a side, found {side}"
        for name, size in self.sizes.items():
            low, high = size.scale
            if not 0 < low <= high <= 1:
                return f"views.{name}_scale: expected 0 < low <= high <= 1, found {[low, high]}"
        if self.global_views < 2:
            return f"views.global_views: the teacher needs at least 2, found {self.global_views}"
        if self.local_views < 1:
            return f"views.local_views: expected at least 1, found {self.local_views}"
        return None


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentation of values: colours of the high-resolution image (DINOv2's values), levels of the
    other sensors, dates and absence of all."""

    # strengths of brightness, contrast, saturation and hue
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    # of the first global view, the other global views, the local views
    blur_probability: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels
    solarise_probability: float = 0.2  # second global view only
    # In each view every band of the other sensors is stretched around its mean by a factor of up to
    # 1 +- levels, and moved by up to +- levels deviations.
    levels: float = 0.0
    date_jitter_days: int = 5  # acquisition dates move by at most this many days, in each view
    # How often the student lacks a sensor in a view, and a frame of a sensor that it sees. One
    # frame always stays. The teacher sees all.
    absent_sensors: float = 0.1
    absent_frames: float = 0.1
    on_device: bool = False  # the loader draws the colours, the model's device applies them

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        low, high = self.blur_sigma
        if not 0 < low <= high:
            return f"augment.blur_sigma: expected 0 < low <= high, found {list(self.blur_sigma)}"
        if not 0 <= self.levels < 1:
            return f"augment.levels: expected a share from 0 to below 1, found {self.levels}"
        if self.date_jitter_days < 0:
            return (
                f"augment.date_jitter_days: expected 0 or more days, found {self.date_jitter_days}"
            )
        for name in ("absent_sensors", "absent_frames"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                return f"augment.{name}: expected a share from 0 to below 1, found {share}"
        return None


@dataclass(frozen=True)
class DataSettings:
    """Where samples come from and how they are cut."""

    shards: str = ""  # folder or URL that holds manifest.json
    # several folders or URLs, each with its weight; shards is "" then
    mixture: dict[str, float] = field(default_factory=dict)
    # The samples that are for this: train, validation, test or all. Samples that say nothing are
    # for training.
    split: str = TRAIN
    # A sensors file, whose means and deviations count before those of the shards; "": none.
    sensors: str = ""
    store: StoreSettings = field(default_factory=StoreSettings)
    workers: int = 2
    prefetch: int = 2  # batches ready ahead, a worker
    # Seconds without a batch from a worker that is waited for; then another one takes its place.
    loader_patience: float = 600.0
    read_ahead: int = 2  # samples whose bytes are read while one is decoded, a worker; 0: none
    frames: dict[str, int] = field(default_factory=lambda: {"hr": 1, "ms": 20, "sar": 10})
    views: ViewSettings = field(default_factory=ViewSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    # bad samples replaced and quarantined before the run stops; 0: the first one stops it
    max_bad_samples: int = 0

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        if not self.shards and not self.mixture:
            return "data.shards: expected the folder or URL of a sharded dataset, found nothing"
        if self.shards and self.mixture:
            return "data.mixture: expected data.shards or data.mixture, found both; leave one empty"
        if self.split not in (*SPLITS, ALL):
            return f"data.split: expected one of {[*SPLITS, ALL]}, found {self.split!r}"
        return self._missing_size()

    def _missing_size(self) -> str | None:
        """One line naming a sensor that is read but whose views have no size, or None."""
        for name, size in self.views.sizes.items():
            for modality in self.frames:
                if modality not in size.pixels:
                    return (
                        f"data.views.{name}_pixels.{modality}: expected the pixels along a side "
                        f"of a {name} view of {modality}, found nothing; set it"
                    )
        return None

    def stream_problem(self) -> str | None:
        """One line saying what makes a stream of batches impossible, or None."""
        for modality, count in self.frames.items():
            if modality not in MODALITIES:
                known = sorted(MODALITIES)
                return f"data.frames: {modality!r} is no known modality, expected some of {known}"
            if modality == "hr" and count != 1:
                return f"data.frames.hr: expected 1, found {count}"
            if count < 1:
                return f"data.frames.{modality}: expected at least 1, found {count}"
        counts_fit = self.workers >= 0 and self.read_ahead >= 0
        if not counts_fit or (self.workers > 0 and self.prefetch < 1):
            return (
                f"data: expected workers >= 0, read_ahead >= 0 and prefetch >= 1, "
                f"found workers {self.workers}, read_ahead {self.read_ahead}, "
                f"prefetch {self.prefetch}"
            )
        if not self.loader_patience > 0:
            return f"data.loader_patience: expected seconds above 0, found {self.loader_patience}"
        return self._missing_size() or self.views.problem() or self.augment.problem()
