"""Whose error it is: a library's, over a file, or this program's own.

What decides is where an error comes from, because no list of classes holds what every library
raises over every damaged file: the innermost frame of the traceback is the code that raised it. A
function written in C has no frame, so what it raises seems to come from its caller.
"""

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from data.errors import InputError

OWN_CODE = str(Path(__file__).parents[2]) + os.sep  # data/
STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
INSTALLED = ("site-packages", "dist-packages")  # folders of installed libraries


def is_of_library(error: BaseException) -> bool:
    """Whether code of a library raised ``error``, or no memory was left for what a file holds."""
    if isinstance(error, MemoryError):
        return True
    trace = error.__traceback__
    return trace is not None and _is_library(_innermost_file(trace))


def words_of(error: BaseException) -> str:
    """What a library says, on one line. rasterio hides the reason of GDAL in the cause."""
    source = error
    if error.__cause__ is not None:
        source = error.__cause__
    message = " ".join(str(source).split())
    if not message:
        return type(source).__name__
    if isinstance(source, LookupError):  # it says no more than the key that is missing
        return f"{type(source).__name__}: {message}"
    return message


@contextmanager
def blamed_on(file: object) -> Iterator[None]:
    """Turn what a library raises inside into an InputError that names the file.

    Raises:
        InputError: a library raised an error. Errors of this program's own code pass.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not is_of_library(error):
            raise
        raise InputError(f"{file}: cannot be used ({words_of(error)})") from error


def _innermost_file(trace: TracebackType) -> str:
    """The source file of the code that raised the error."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename


def _is_library(file: str) -> bool:
    """Whether a source file belongs to a library.

    Compiled modules name theirs relative to their own sources: "rasterio/_io.pyx".
    """
    if file.startswith(OWN_CODE):
        return False
    if not os.path.isabs(file) or file.startswith(STANDARD_LIBRARY):
        return True
    return any(folder in Path(file).parts for folder in INSTALLED)
