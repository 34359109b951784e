"""How files are read."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StoreSettings:
    """Tries, pauses and the cache; the defaults suit object stores."""

    attempts: int = 5  # tries of a range before the sample counts as bad
    delay: float = 0.1  # seconds before the second try; doubled each time, with jitter
    max_delay: float = 10.0  # seconds
    timeout: float = 30.0  # seconds without an answer
    connections: int = 8  # ranges read at the same time, a process
    gap: int = 65536  # bytes: ranges of a file that lie closer are read as one request
    cache: str = ""  # folder of the local cache; "" for none
    cache_gb: float = 100.0
    # of fsspec's file system (s3: endpoint_url, anon, ...)
    options: dict = field(default_factory=dict)

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        least = {"attempts": 1, "connections": 1, "gap": 0, "delay": 0, "max_delay": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value < smallest:
                return f"store.{name}: expected at least {smallest}, found {value}"
        for name in ("timeout", "cache_gb"):
            value = getattr(self, name)
            if value <= 0:
                return f"store.{name}: expected a positive number, found {value}"
        return None


DEFAULTS = StoreSettings()
