"""The two files of an audit: audit.json and audit.html."""

import json
from dataclasses import asdict
from pathlib import Path

from matplotlib import rc_context

from data.audit.findings.records import Summary
from data.audit.page.sections import TEMPLATES, sections
from data.audit.page.thumbnails import draw_cards
from data.audit.shifted import draw_shifts
from data.errors import InputError
from data.files import write_whole
from data.pages.style import STYLE
from data.shards.dataset import ShardDataset

JSON_FILE = "audit.json"
PAGE_FILE = "audit.html"


def make_folder(folder: Path) -> None:
    """Make the folder of an audit.

    Raises:
        InputError: a file is in its place.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder}: expected a folder for the audit, found a file; choose another place"
        )
    folder.mkdir(parents=True, exist_ok=True)


def write(folder: Path, dataset: ShardDataset, summary: Summary) -> None:
    """Write both files; each is whole or missing."""
    write_whole(folder / JSON_FILE, json.dumps(asdict(summary), indent=1, allow_nan=False))
    write_whole(folder / PAGE_FILE, audit_page(dataset, summary))


def audit_page(dataset: ShardDataset, summary: Summary) -> str:
    """The HTML of a summary."""
    with rc_context(STYLE):
        shifts = None
        if summary.registration.worst:
            shifts = draw_shifts(dataset, summary.registration.worst)
        return TEMPLATES.page(
            "Dataset audit",
            subtitle=(
                f"{dataset.path}: {summary.audited} of {summary.samples} samples read,"
                f" fingerprint {summary.fingerprint}"
            ),
            sections=sections(summary, shifts, draw_cards(dataset, summary.suspects.tiles)),
        )
