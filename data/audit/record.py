"""What the audit keeps of one sample: small, plain, sent from the process that read it."""

from dataclasses import dataclass, field

from data.audit.registration import Registration


@dataclass(frozen=True)
class Failure:
    """One thing that cannot be used."""

    shard: str
    key: str | None  # None: the index itself cannot be read
    field: str  # member, or "index"
    reason: str


@dataclass
class Record:
    """One sample. A sample with a failure has only what the index says; its pixels count nowhere."""

    sample: int
    shard: str
    failures: list[Failure] = field(default_factory=list)
    key: str | None = None
    region: int | None = None
    lon: float = 0.0
    lat: float = 0.0
    cells: int = 0
    dates: dict[str, list[str]] = field(default_factory=dict)  # modality -> ISO day of each frame
    usable: dict[str, int] = field(default_factory=dict)  # modality -> frames with a valid pixel
    sizes: dict[str, int] = field(default_factory=dict)  # member -> bytes
    content: int = 0  # hash of the members' checksums
    invalid: dict[str, list[int]] = field(
        default_factory=dict
    )  # modality -> invalid cells of each frame
    looks: dict[str, int] = field(default_factory=dict)  # "hr" or "ms" -> perceptual hash
    classes: list[int] | None = None  # indices of the classes in its labels; None: it has no labels
    registration: Registration | None = None  # None: lacks hr or ms
