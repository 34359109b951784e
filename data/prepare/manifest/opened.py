"""Where the sources of many tiles lie: every file is opened once, before any tile is made."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from data.errors import InputError
from data.prepare.contract.blame import blamed_on
from data.prepare.contract.files import files_kept_open
from data.prepare.contract.source import Place, Reader, main_file

AT_ONCE = 16  # files whose headers are read at once: those of a catalogue lie far away


@dataclass(frozen=True)
class Opened:
    """What the headers of a source say."""

    place: Place | None  # None: it has no pixels with a place
    fault: str = ""  # why it cannot be used


def opened(readers: Iterable[Reader]) -> list[Opened]:
    """Check sources and ask where their pixels lie, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_opened, readers))


def _opened(reader: Reader) -> Opened:
    """Check one source and ask where its pixels lie."""
    try:
        with files_kept_open(), blamed_on(main_file(reader)):
            reader.check()
            place = reader.place()
    except InputError as error:
        return Opened(None, str(error))
    if not isinstance(place, Place):
        return Opened(None)
    return Opened(place)
