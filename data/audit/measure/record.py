"""What the audit keeps of one sample: small, plain, sent from the process that read it."""

import math
from dataclasses import dataclass, field

from data.audit.measure.fault import Fault
from data.audit.measure.profile import Profile
from data.audit.measure.registration import Registration


@dataclass(frozen=True)
class Failure:
    """One thing that cannot be used."""

    shard: str
    key: str | None  # None: the index itself cannot be read
    field: str  # member, or "index"
    reason: str


@dataclass
class Record:
    """One sample.

    A sample with a failure has only what the index says; its pixels are not counted.
    """

    sample: int
    shard: str
    failures: list[Failure] = field(default_factory=list)
    key: str | None = None  # None: the index cannot be read
    region: int = -1  # its index in the region table
    lon: float = math.nan  # degrees; NaN: nobody knows the place
    lat: float = math.nan  # degrees; NaN as well
    cells: int = 0  # along a side
    dates: dict[str, list[str]] = field(default_factory=dict)  # modality -> ISO day of each frame
    usable: dict[str, int] = field(default_factory=dict)  # modality -> frames with a valid pixel
    sizes: dict[str, int] = field(default_factory=dict)  # member -> bytes
    content_hash: int = 0  # of the members' checksums
    # modality -> invalid cells of each frame
    invalid: dict[str, list[int]] = field(default_factory=dict)
    picture_hashes: dict[str, int] = field(default_factory=dict)  # "hr" or "ms" -> its hash
    classes: list[int] | None = None  # indices of the classes in its labels; None: no labels
    registration: Registration | None = None  # None: hr or ms is missing
    source: str = ""  # its name, see ``data/audit/measure/sources.py``
    files_hash: int = 0  # of the names of its files
    has_uncertain_dates: bool = False  # whether some are stand-ins
    profiles: dict[str, Profile] = field(default_factory=dict)  # modality -> its numbers
    faults: list[Fault] = field(default_factory=list)  # that the sample shows by itself
