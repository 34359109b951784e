"""One HTML file: text, tables, and pictures inside it; no network, no scripts."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

CSS = """
:root { --ink: #22303a; --soft: #5c6b75; --line: #e1e6ea; --good: #1d7a4c; --look: #9a6200; --wrong: #b3261e;
        --accent: #2f6690; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7f8; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", "Liberation Sans",
       sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 80px; }
header h1 { font-size: 30px; margin: 0; }
header p { color: var(--soft); margin: 4px 0 18px; overflow-wrap: anywhere; }
section, nav { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 26px;
               margin: 0 0 20px; overflow-x: auto; }
nav ol { margin: 0; padding-left: 22px; columns: 2; }
nav a { color: var(--accent); text-decoration: none; }
h2 { font-size: 21px; margin: 0 0 10px; }
h3 { font-size: 16px; margin: 22px 0 6px; }
figure { margin: 14px 0 22px; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption, .note { color: var(--soft); font-size: 14.5px; max-width: 900px; }
figcaption b, .note b { color: var(--ink); }
table { border-collapse: collapse; font-size: 14.5px; margin: 10px 0; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line);
         overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-size: 13px; overflow-wrap: anywhere; }
.good, .look, .wrong, .unknown { font-weight: 700; white-space: nowrap; }
.good { color: var(--good); } .look { color: var(--look); } .wrong { color: var(--wrong); }
.unknown { color: var(--soft); }
.swatch { display: inline-block; width: 13px; height: 13px; border-radius: 3px; vertical-align: -1px; }
@media (max-width: 700px) { nav ol { columns: 1; } section { padding: 16px; } }
@media print { body { background: #fff; } section { break-inside: avoid-page; border: 0; } }
"""


class Html(str):
    """Text that is HTML already; any other string is escaped wherever it goes into a page."""


def text(value) -> Html:
    """A value as HTML: whole numbers in groups of three digits, others with four digits, None as a
    dash."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("&ndash;")
    if isinstance(value, float):
        return Html(f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}")
    return Html(f"{value:,}" if isinstance(value, int) else escape(str(value)))


def table(head: Sequence | None, rows: Iterable[Sequence], numbers: Sequence[int] = ()) -> Html:
    """Rows of values under a head; without one the first column names the row. ``numbers``: columns
    set to the right."""

    def line(values: Sequence, heads: int) -> str:
        """``heads``: leading cells that name a column or the row."""
        cells = [
            (
                "th" if column < heads else "td",
                " class=number" if column in numbers else "",
                text(value),
            )
            for column, value in enumerate(values)
        ]
        return (
            "<tr>"
            + "".join(f"<{kind}{name}>{value}</{kind}>" for kind, name, value in cells)
            + "</tr>\n"
        )

    top = "" if head is None else line(head, len(head))
    return Html(f"<table>{top}{''.join(line(row, head is None) for row in rows)}</table>\n")


def picture(figure: Figure, caption: str, alt: str) -> Html:
    """A figure as PNG inside the page, its caption under it. ``alt``: what it is, for those who
    cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Html(
        f'<figure><img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{text(caption)}</figcaption></figure>\n"
    )


def note(words: str) -> Html:
    """A paragraph of explanation."""
    return Html(f"<p class=note>{text(words)}</p>\n")


def heading(words: str) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{text(words)}</h3>\n")


def badge(kind: str, words: str) -> Html:
    """A verdict in its colour. ``kind``: good, look, wrong or unknown."""
    return Html(f"<span class={kind}>{text(words)}</span>")


def swatch(colour: str) -> Html:
    """A small square of a colour."""
    return Html(f'<span class=swatch style="background:{colour}"></span>')


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole file from (heading, HTML) sections, with a table of contents."""
    contents = "".join(
        f'<li><a href="#s{i}">{text(name)}</a></li>\n' for i, (name, _) in enumerate(sections, 1)
    )
    body = "".join(
        f'<section id="s{i}"><h2>{i}. {text(name)}</h2>\n{content}</section>\n'
        for i, (name, content) in enumerate(sections, 1)
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{text(title)}</title>\n'
        f"<style>{CSS}</style></head>\n<body><main>\n"
        f"<header><h1>{text(title)}</h1><p>{text(subtitle)}</p></header>\n"
        f"<nav><ol>{contents}</ol></nav>\n{body}</main></body></html>\n"
    )
