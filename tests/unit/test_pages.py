"""README and docs/ are true where a machine can tell: links, names of files, examples of JSON."""

import json
import re
from pathlib import Path

import pytest

from data.prepare.manifest.read import read_manifest
from data.tiles.definitions import parse_sensors
from tests.commands import skysense
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE_FILE = re.compile(r"`((?:data|engine|models|launch|tests)/[\w/]+\.(?:py|json|npz))[:`]")
# A command, and lines of its output as comments.
FIGURES = re.compile(r"^```\nskysense (?P<words>.*)\n(?P<lines>(?:# .*\n)+)```", re.MULTILINE)
JSON_BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """A page, relative to the checkout."""
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The names by which a link reaches the headings of a page, as GitHub makes them."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^a-z0-9 _-]", "", text.lower()).replace(" ", "-") for text in headings}


def broken_links(page: Path) -> list[str]:
    """Links to files or headings that there are not."""
    broken = []
    for link in LINK.findall(page.read_text()):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page
        if file:
            target = (page.parent / file).resolve()
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def json_values(page: Path) -> list[dict]:
    """The objects in the fenced examples of a page, of which a block may hold several."""
    values = []
    for block in JSON_BLOCK.findall(page.read_text()):
        rest = block.strip()
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            values.append(value)
            rest = rest[end:].lstrip()
    return values


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert not broken_links(page)


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](#here) [b](#there) [c](other.md) [d](https://example.org)\n")
    assert broken_links(page) == ["#there", "other.md"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_are_there(page):
    named = CODE_FILE.findall(page.read_text())
    assert [file for file in named if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_are_json(page):
    assert all(isinstance(value, dict) for value in json_values(page))


def test_records_of_the_manifest_page_are_accepted(tmp_path):
    records = []
    for value in json_values(DOCS / "manifest.md"):
        if "sources" in value and "reader" not in value:  # a folder is looked at while it is read
            records.append(value)
    assert len(records) >= 3
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    entries = list(read_manifest(manifest))
    assert len(entries) == len(records)


def test_sensors_of_the_sensors_page_are_accepted():
    (described,) = [value for value in json_values(DOCS / "sensors.md") if "sensors" in value]
    keys = [sensor.key for sensor in parse_sensors(described, "sensors.md")]
    assert keys == ["landsat", "rgbn", "polsar"]


def test_figures_of_decisions_are_those_that_the_command_prints():
    blocks = list(FIGURES.finditer((DOCS / "decisions.md").read_text()))
    assert blocks
    for block in blocks:
        done = skysense(*block["words"].split())
        assert done.returncode == 0, done.stderr
        printed = " ".join(done.stdout.split())
        for line in block["lines"].splitlines():
            assert line.removeprefix("# ") in printed, line
