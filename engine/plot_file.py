"""The ``--plot FILE`` of a command: refused before the work if it cannot be written, drawn after it
in one style."""

from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from data.pages.style import STYLE
from engine.errors import ConfigError

PICTURES = (".png", ".svg", ".pdf")


def check_plot(path: Path | None) -> None:
    """Raise ConfigError for a picture that could not be written; None is no picture."""
    if path is not None and not (path.suffix in PICTURES and path.absolute().parent.is_dir()):
        raise ConfigError(
            f"--plot: expected a name ending in {', '.join(PICTURES)} in a folder that exists, found "
            f"{path}"
        )


def save_plot(path: Path | None, draw: Callable[[], Figure]) -> None:
    """Draw in the project's style and write, if there is a path."""
    if path is not None:
        with rc_context(STYLE):
            draw().savefig(path)
