"""Limits for the figures of tests/style.py: the code stays as easy to read as its anchors."""

import pytest

from tests.paths import ROOT
from tests.style import FOLDERS, Figures, measure, python_files

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
# Per 1000 code lines: the highest figure of nanochat, dinov3 and httpx, by the same script.
HIGHEST = {
    "shared_assignments": 9.7,
    "comprehensions": 22.7,
    "nested_comprehensions": 0.3,
    "conditional_expressions": 14.2,
    "long_calls": 4.8,
}
MOST_CHARACTERS = 47.3  # a code line
LEAST_KEYWORD_ONLY = 0.05  # of the functions; nanochat 0.8 %, dinov3 8.3 %, httpx 9.0 %


@pytest.fixture(scope="module")
def figures() -> Figures:
    """Figures of the library and its commands."""
    files = []
    for folder in FOLDERS:
        files += python_files(ROOT / folder)
    return measure(files)


def test_no_file_and_no_function_is_long(figures):
    assert figures.longest_file <= MOST_FILE_LINES
    assert figures.longest_function <= MOST_FUNCTION_LINES


@pytest.mark.parametrize("name", HIGHEST)
def test_lines_are_plain(figures, name):
    assert 1000 * getattr(figures, name) / figures.code_lines <= HIGHEST[name]


def test_lines_are_short(figures):
    assert figures.characters / figures.code_lines <= MOST_CHARACTERS


def test_parameters_that_could_be_confused_are_named(figures):
    assert figures.keyword_only / figures.functions >= LEAST_KEYWORD_ONLY


def test_a_dense_line_is_counted(tmp_path):
    dense = tmp_path / "dense.py"
    dense.write_text(
        '"""Dense lines."""\n\n\ndef f(x, y):\n    a, b = x, y\n'
        "    return [c if c else d for c in a for d in b], f(1, 2, 3, 4, 5)  # noqa: F841\n"
    )
    found = measure([dense])
    assert found.code_lines == 3
    assert found.shared_assignments == 1
    assert found.comprehensions == found.nested_comprehensions == 1
    assert found.conditional_expressions == 1
    assert found.long_calls == 1
    assert found.keyword_only == 0
    assert found.suppressions == 1
    assert found.longest_function == 3
