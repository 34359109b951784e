"""Typed settings of the input pipeline; the defaults are the paper preset."""

from dataclasses import dataclass, field

from data.storage.store import StoreSettings


@dataclass(frozen=True)
class ViewSettings:
    """Geometry of the views (2 global and 6 local; supplement, section C)."""

    global_views: int = 2
    local_views: int = 6
    global_cells: int = 16  # side of a global view in 10 m cells; multiple of 4
    local_cells: int = 4
    global_scale: tuple[float, float] = (0.32, 1.0)  # share of the tile's area
    local_scale: tuple[float, float] = (0.05, 0.32)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flips: bool = True
    quarter_turns: bool = True

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        for name in ("global_cells", "local_cells"):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                return (
                    f"views.{name}: expected a positive multiple of 4, found {getattr(self, name)}"
                )
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                return f"views.{name}: expected 0 < low <= high <= 1, found {[low, high]}"
        if self.global_views < 2:
            return f"views.global_views: the teacher needs at least 2, found {self.global_views}"
        if self.local_views < 1:
            return f"views.local_views: expected at least 1, found {self.local_views}"
        return None


@dataclass(frozen=True)
class AugmentSettings:
    """Photometric augmentation of the high-resolution image only (DINOv2's values)."""

    jitter: tuple[float, float, float, float] = (
        0.4,
        0.4,
        0.2,
        0.1,
    )  # brightness, contrast, saturation, hue
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    blur_probability: tuple[float, float, float] = (
        1.0,
        0.1,
        0.5,
    )  # global 1, other globals, locals
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels
    solarise_probability: float = 0.2  # global 2 only
    date_jitter_days: int = 5  # acquisition dates move by at most this many days
    on_device: bool = False  # colours are drawn by the loader and applied where the model is

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        low, high = self.blur_sigma
        return (
            None
            if 0 < low <= high
            else (f"augment.blur_sigma: expected 0 < low <= high, found {list(self.blur_sigma)}")
        )


@dataclass(frozen=True)
class DataSettings:
    """Where samples come from and how they are cut."""

    shards: str = ""  # folder or URL that holds manifest.json
    mixture: dict[str, float] = field(
        default_factory=dict
    )  # several of them, each with its weight; then shards is ""
    store: StoreSettings = field(default_factory=StoreSettings)
    workers: int = 2
    prefetch: int = 2  # batches ready ahead, a worker
    read_ahead: int = 2  # samples whose bytes are read while one is decoded, a worker; 0: none
    frames: dict[str, int] = field(default_factory=lambda: {"hr": 1, "ms": 20, "sar": 10})
    views: ViewSettings = field(default_factory=ViewSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    max_bad_samples: int = (
        0  # bad samples replaced and quarantined before the run stops; 0: the first one stops it
    )

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        if not self.shards and not self.mixture:
            return "data.shards: expected the folder or URL of a sharded dataset, found nothing"
        if self.shards and self.mixture:
            return "data.mixture: expected data.shards or data.mixture, found both; leave one empty"
        return self.views.problem()
