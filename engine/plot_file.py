"""The ``--plot FILE`` of a command.

It is checked before the work, so that a picture that cannot be written costs nothing, and drawn
after it.
"""

from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from data.files import check_place
from data.pages.style import STYLE
from engine.errors import ConfigError

PICTURES = (".png", ".svg", ".pdf")


def check_plot(path: Path | None) -> None:
    """Check that a picture can be written.

    Args:
        path: file of the picture; None: no picture is wanted.

    Raises:
        ConfigError: the folder does not exist, or the name has another ending than ``PICTURES``.
        InputError: the folder cannot be written.
    """
    if path is None:
        return
    if path.suffix not in PICTURES or not path.absolute().parent.is_dir():
        raise ConfigError(
            f"--plot: expected a name ending in {', '.join(PICTURES)} in a folder that exists,"
            f" found {path}"
        )
    check_place("--plot", path)


def save_plot(path: Path | None, draw: Callable[[], Figure]) -> None:
    """Draw a picture in the project's style and write it.

    Args:
        path: file to write; None: nothing is drawn.
        draw: makes the figure.
    """
    if path is not None:
        with rc_context(STYLE):
            draw().savefig(path)
