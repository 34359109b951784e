"""HTML pages from Jinja templates: one file with its pictures inside; no network, no scripts."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from data.pages.words import number_of

SHARED_TEMPLATES = "data.pages"
DOTS_PER_INCH = 110
DASH = Markup("&ndash;")  # stands where a value is missing


@dataclass(frozen=True)
class Section:
    """A numbered part of a page."""

    title: str
    content: Markup


class Templates:
    """The templates of one package, with those that all pages share.

    Everything that a template prints is escaped, except macros and other ``Markup``. Numbers and
    missing values are written by ``display``. An unknown name in a template is an error.
    """

    def __init__(self, package: str) -> None:
        """Open the folder ``templates`` of ``package``, a dotted module name."""
        loader = ChoiceLoader([PackageLoader(package), PackageLoader(SHARED_TEMPLATES)])
        self._environment = Environment(
            loader=loader,
            autoescape=True,
            undefined=StrictUndefined,
            finalize=display,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["png_source"] = png_source
        self._environment.filters["number_of"] = number_of

    def section(self, title: str, template: str, **context: Any) -> Section:
        """Write one section.

        Args:
            title: its heading.
            template: file name of the template that writes the content.
            **context: the names that the template uses.
        """
        return Section(title, self._render(template, context))

    def page(self, title: str, *, subtitle: str, sections: Sequence[Section]) -> str:
        """Write the whole file: header, table of contents, and the sections."""
        context = {"title": title, "subtitle": subtitle, "sections": sections}
        return self._render("page.html", context) + "\n"

    def _render(self, template: str, context: dict[str, Any]) -> Markup:
        return Markup(self._environment.get_template(template).render(context))


def display(value: Any) -> Any:
    """Prepare a value for a page.

    Whole numbers get groups of three digits, other numbers four digits, None becomes a dash.
    Everything else is returned as it is.
    """
    if value is None:
        return DASH
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) < 1e4:
            return f"{value:,.4g}"
        return f"{value:,.0f}"
    return value


def png_source(figure: Figure) -> str:
    """The address of an image that holds a figure as PNG: ``data:image/png;base64,...``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
