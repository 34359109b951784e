"""What an audit found, as plain records: the content of audit.json and of the page.

The fields stand in the order of the file. docs/audit.md describes them. Shares lie between 0 and 1;
None stands where there was nothing to measure.
"""

from dataclasses import dataclass, field

from data.audit.measure.record import Failure


@dataclass(frozen=True)
class Verdict:
    """One question and its answer."""

    question: str
    verdict: str  # "wrong", "look", "good", or "unknown" where there was nothing to judge
    numbers: str
    limit: str


@dataclass(frozen=True)
class Combination:
    """Samples that have exactly these modalities."""

    modalities: list[str]
    samples: int


@dataclass(frozen=True)
class Counts:
    """Shards, bytes, sensors, sizes, licences."""

    shards: int
    bytes_on_disk: int
    bytes: dict[str, int]  # member -> bytes of the samples read
    modalities: dict[str, int]  # modality -> samples
    combinations: list[Combination]
    cells: dict[int, int]  # cells along a side -> samples
    attribution: list[dict]  # of the dataset's manifest: licence, attribution, samples


@dataclass(frozen=True)
class RegionCount:
    """Samples of one region."""

    region: int
    cell: int  # of the grid of regions
    samples: int


@dataclass(frozen=True)
class Places:
    """Where the samples lie."""

    regions_in_manifest: int
    regions: list[RegionCount]
    points: list[list[float]]  # longitude and latitude in degrees of some samples
    unknown: int = 0  # samples whose place nobody knows


@dataclass(frozen=True)
class LongestGap:
    """The longest time between two frames of a sample."""

    days: int
    key: str


@dataclass(frozen=True)
class ValidShare:
    """Share of valid cells in all frames of a sample."""

    valid_share: float
    key: str


@dataclass(frozen=True)
class SeriesFindings:
    """Frames, dates and invalid cells of one modality."""

    samples: int
    frames: int
    usable_frames: int
    frames_a_sample: dict[int, int]  # frames of a sample -> samples
    median_frames: int | None
    months: dict[int, int]  # 1..12 -> frames
    years: dict[int, int]  # year -> frames
    gap_median_days: int | None
    gap_longest_days: int | None
    longest_gaps: list[LongestGap]
    invalid_share: float | None
    invalid_share_by_month: dict[int, float | None]
    fewest_valid: list[ValidShare]


@dataclass(frozen=True)
class Chart:
    """A histogram coarse enough to draw. The outermost bins take what lies beyond them."""

    edges: list[float]  # one more than counts
    counts: list[int]


@dataclass(frozen=True)
class BandFindings:
    """Statistics of one band, measured and of the registry, all divided by the sensor's scale."""

    band: str
    pixels: int
    mean: float
    std: float
    low: float
    high: float
    share_at_low: float  # of the pixels, at the least value
    share_at_high: float
    percentiles: dict[int, float]  # percent -> value
    registry_mean: float | None  # None: nobody has measured the sensor before
    registry_std: float | None
    histogram: Chart


@dataclass(frozen=True)
class ClassCount:
    """Label pixels of one class."""

    index: int
    name: str
    pixels: int
    share: float | None  # of the labelled pixels
    samples: int


@dataclass(frozen=True)
class ClassFindings:
    """Label pixels of all classes."""

    samples_with_labels: int
    pixels: int
    labelled_share: float | None
    table: list[ClassCount]


@dataclass(frozen=True)
class TileShift:
    """The shift of a tile's high resolution against its Sentinel-2."""

    sample: int
    key: str
    lead: float | None  # of the best correlation over those elsewhere
    down_cells: float | None
    right_cells: float | None
    distance_cells: float | None
    correlation_as_stored: float | None
    correlation_at_best: float | None


@dataclass(frozen=True)
class SharedShift:
    """The shift that the small tiles of one source share."""

    attribution: str
    tiles: int
    reason: str  # why there is no shift
    t: float | None  # the best correlation in standard errors
    down_cells: float | None
    right_cells: float | None
    distance_cells: float | None
    correlation_as_stored: float | None
    correlation_at_best: float | None


@dataclass(frozen=True)
class RegistrationFindings:
    """Shifts of all tiles."""

    judged: int  # samples with a shift
    cannot_tell: dict[str, int]  # reason -> samples
    median_cells: float | None
    beyond_limit: int  # samples
    limit_cells: float
    worst: list[TileShift]
    shared: list[SharedShift]


@dataclass(frozen=True)
class KeyPairs:
    """The number of pairs, and the keys of the first."""

    pairs: int
    first: list[list[str]]


@dataclass(frozen=True)
class DuplicateFindings:
    """Samples that occur twice, by what tells."""

    same_key: KeyPairs
    same_bytes: KeyPairs
    same_picture: KeyPairs
    overlapping: KeyPairs


@dataclass(frozen=True)
class FaultCount:
    """Tiles with one kind of fault."""

    verdict: str  # "wrong" or "look"
    sensor: str  # or "labels"
    kind: str
    tiles: int


@dataclass(frozen=True)
class SuspectTile:
    """A tile with a fault."""

    sample: int
    key: str
    source: str
    verdict: str
    sensor: str
    kind: str
    reason: str


@dataclass(frozen=True)
class SuspectSourceFindings:
    """A source with a fault that its tiles share."""

    source: str
    verdict: str
    sensor: str
    kind: str
    reason: str


@dataclass(frozen=True)
class SuspectFindings:
    """What speaks against single tiles and sources, the worst first."""

    counts: list[FaultCount]
    tiles: list[SuspectTile]  # of every kind the worst
    sources: list[SuspectSourceFindings]


@dataclass(frozen=True)
class SourceSensor:
    """Frames of one sensor of a source, and the numbers of its sampled tiles."""

    tiles: int
    frames: int
    first: str  # ISO day
    last: str
    years: dict[int, int]  # year -> frames
    bands: list[str]
    # The median over tiles of each band's median, and the median absolute deviation from it, in the
    # archive's unit; empty without a valid pixel.
    median: list[float]
    deviation: list[float]


@dataclass(frozen=True)
class SourceFindings:
    """One source."""

    source: str
    tiles: int
    faults: list[FaultCount]
    sensors: dict[str, SourceSensor]


@dataclass
class Summary:
    """Everything that an audit found."""

    format: str
    version: int
    fingerprint: str
    samples: int
    audited: int
    corrupt_samples: int
    failures: list[Failure]
    counts: Counts
    places: Places
    series: dict[str, SeriesFindings]  # by modality
    bands: dict[str, list[BandFindings]]  # by modality
    classes: ClassFindings
    registration: RegistrationFindings
    duplicates: DuplicateFindings
    suspects: SuspectFindings
    sources: list[SourceFindings]
    verdicts: list[Verdict] = field(default_factory=list)  # the worst first
