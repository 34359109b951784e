"""How every command ends: 0, or one line on stderr and 2 for an error that the user can put right."""

import dis
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(main: Callable[[], int | None]) -> None:
    """Call ``main`` and leave the process: its return value (None is 0) as exit status, ``error:
    <line>`` and 2 for an error that this project raised on purpose. Anything else, also behind such
    an error, keeps its traceback: it is a bug, not a mistake."""
    _show_log()
    try:
        status = main() or 0
    except (ValueError, FileNotFoundError) as error:
        cause = error.__cause__
        if not raised_here(error) or not (
            cause is None or isinstance(cause, (ValueError, OSError))
        ):
            raise
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _show_log() -> None:
    """What the project logs, such as which kernels run and why not, on stderr; of a run's ranks the
    first speaks."""
    if os.environ.get("RANK", "0") == "0":
        for room in ("data", "engine", "models"):
            log = logging.getLogger(room)
            log.setLevel(logging.INFO)
            log.addHandler(logging.StreamHandler())
            log.propagate = False  # a library's handler on the root would say it again


def raised_here(error: BaseException) -> bool:
    """Whether a ``raise`` statement of this project made the error: not a library that it called,
    compiled ones (which leave no frame of their own) included."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    path = Path(code.co_filename).resolve()
    ours = path.is_relative_to(ROOT) and "site-packages" not in path.parts
    return ours and code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
