"""What a command prints: text, or with ``--json`` one JSON object."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from data.files import check_place, write_whole
from launch.options import STANDARD_OUTPUT


def check_json(path: Path | None) -> None:
    """Before the work: raise InputError if ``--json`` names a file that cannot be written."""
    if path is not None and path != STANDARD_OUTPUT:
        check_place("--json", path)


def print_line(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def print_line_aside(line: str) -> None:
    """Print a line at once to standard error."""
    print(line, file=sys.stderr, flush=True)


def progress(path: Path | None) -> Callable[[str], None]:
    """Where lines of progress go: to standard error if ``--json`` has taken standard output."""
    if path == STANDARD_OUTPUT:
        return print_line_aside
    return print_line


def write_json(record: dict, path: Path | None) -> None:
    """Print ``record`` or write it to a file, as ``--json`` says; nothing without it."""
    content = json.dumps(record, indent=1)
    if path == STANDARD_OUTPUT:
        print(content, flush=True)
    elif path is not None:
        write_whole(path, content + "\n")


def show(text: str, record: dict, path: Path | None) -> None:
    """Print ``text``, or ``record`` in its place, or write ``record`` to a file as well."""
    if path != STANDARD_OUTPUT:
        print(text, flush=True)
    write_json(record, path)
