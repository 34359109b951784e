"""The two files of an audit: audit.json and audit.html."""

import json
from pathlib import Path

from matplotlib import rc_context

from data.audit.sections import sections
from data.audit.shifted import shifted
from data.errors import InputError
from data.files import write_whole
from data.pages.page import page
from data.pages.style import STYLE
from data.shards.dataset import ShardDataset

FILES = ("audit.json", "audit.html")


def claim(folder: Path) -> None:
    """Make the folder. Raises InputError where a file is in its place."""
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder}: expected a folder for the audit, found a file; choose another place"
        )
    folder.mkdir(parents=True, exist_ok=True)


def write(folder: Path, dataset: ShardDataset, summary: dict) -> None:
    """Write both files; each is whole or not there."""
    with rc_context(STYLE):
        worst = summary["registration"]["worst"]
        content = page(
            "Dataset audit",
            f"{dataset.path}: {summary['audited']} of {summary['samples']} samples read, "
            f"fingerprint {summary['fingerprint']}",
            sections(summary, shifted(dataset, worst) if worst else None),
        )
    for name, text in zip(FILES, (json.dumps(summary, indent=1, allow_nan=False), content)):
        write_whole(folder / name, text)
