"""The HTML page: what is escaped, how values are written, the parts that pages share."""

import base64
import io

import numpy as np
import pytest
from jinja2 import TemplateNotFound, UndefinedError
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from data.pages.page import Section, Templates, display, png_source
from data.pages.words import number_of
from tests.pages import Page

PARTS = """
{% from "macros.html" import badge, heads, number_heads, numbers, picture %}
<table>
<tr>{{ heads([words]) }}{{ number_heads([words]) }}</tr>
<tr><td>{{ badge("good", words) }}</td>{{ numbers([words]) }}</tr>
</table>
{% call picture(figure, words) %}
{{ words }}
{% endcall %}
"""


@pytest.fixture
def templates(tmp_path, monkeypatch):
    """Templates of a package made for the test, with one that uses every shared part."""
    package = tmp_path / "pages_of_a_test"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "templates" / "parts.html").write_text(PARTS)
    (package / "templates" / "value.html").write_text("<td>{{ value }}</td>")
    monkeypatch.syspath_prepend(tmp_path)
    return Templates("pages_of_a_test")


def test_text_is_escaped_wherever_it_goes(templates):
    words = '<a & "b">'
    figure = Figure(figsize=(1, 1))
    section = templates.section(words, "parts.html", words=words, figure=figure)
    html = templates.page(words, subtitle=words, sections=[section])
    page = Page(html)
    assert not page.open
    assert page.tags.count("a") == 1  # that of the table of contents
    # title, header (2), contents, section, head cells (2), badge, number, caption
    assert "".join(page.words).count(words) == 10
    assert 'alt="&lt;a &amp; &#34;b&#34;&gt;"' in html


def test_a_page_holds_its_sections_in_order(templates):
    sections = [
        Section("first", Markup("<p>words A</p>")),
        Section("second", Markup("<p>words B</p>")),
    ]
    page = Page(templates.page("title", subtitle="what it shows", sections=sections))
    assert page.ids == ["s1", "s2"]
    assert page.references == ["#s1", "#s2"]
    text = "".join(page.words)
    assert text.index("1. first") < text.index("words A") < text.index("2. second")


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, "&ndash;"),
        (1.23456, "1.235"),
        (1234567, "1,234,567"),
        (12345.6, "12,346"),
        (0.00001234, "1.234e-05"),
        ("1234", "1234"),
        (np.float64(0.5), "0.5"),
    ],
)
def test_values(templates, value, shown):
    assert str(display(value)) == shown
    assert templates.section("", "value.html", value=value).content == f"<td>{shown}</td>"


def test_a_name_that_is_missing_is_an_error(templates):
    with pytest.raises(UndefinedError):
        templates.section("", "value.html")
    with pytest.raises(TemplateNotFound):
        templates.section("", "nowhere.html")


@pytest.mark.parametrize(
    "number, words", [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (12345, "12,345 steps")]
)
def test_numbers_with_their_noun(number, words):
    assert number_of(number, "step") == words


def test_the_picture_is_in_the_page():
    figure = Figure(figsize=(2, 1), facecolor="#204060")
    source = png_source(figure)
    image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert image.size == (220, 110)
    assert np.array(image)[50, 50, :3].tolist() == [0x20, 0x40, 0x60]
