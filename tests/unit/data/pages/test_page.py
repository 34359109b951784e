"""The HTML page: what is escaped, how numbers are written, tables with and without a head, the
picture inside."""

import base64
import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from data.pages.page import Html, badge, heading, note, page, picture, table, text
from tests.pages import Page


def test_text_is_escaped_wherever_it_goes():
    words = '<a & "b">'
    figure = Figure(figsize=(1, 1))
    parts = [
        heading(words),
        note(words),
        badge("good", words),
        picture(figure, words, words),
        table((words,), [(words,)]),
        table(None, [(words, words)]),
    ]
    found = Page(page(words, words, [(words, Html("".join(parts)))]))
    assert not found.open and found.tags.count("a") == 1  # that of the table of contents
    assert (
        "".join(found.words).count(words) == 13
    )  # title, header (2), contents, section, the parts (4), tables (4)
    assert text(Html("<b>")) == "<b>"


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, "&ndash;"),
        (1.23456, "1.235"),
        (1234567, "1,234,567"),
        (12345.6, "12,346"),
        (0.00001234, "1.234e-05"),
        ("1234", "1234"),
    ],
)
def test_values(value, shown):
    assert text(value) == shown


def test_heads_name_columns_or_rows():
    assert Page(table(("a", "b"), [(1, 2)])).tags == ["table", "tr", "th", "th", "tr", "td", "td"]
    assert Page(table(None, [(1, 2), (3, 4)])).tags == ["table", "tr", "th", "td", "tr", "th", "td"]
    assert table(("a", "b"), [(1, 2)], numbers=[1]).count("class=number") == 2


def test_the_picture_is_in_the_page():
    figure = Figure(figsize=(2, 1), facecolor="#204060")
    (source,) = Page(picture(figure, "", "a plain colour")).references
    image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert image.size == (220, 110) and np.array(image)[50, 50, :3].tolist() == [0x20, 0x40, 0x60]
