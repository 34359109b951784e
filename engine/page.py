"""One self-contained HTML page: text, tables, pictures inside it; no network, no scripts."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

CSS = """
:root { --ink: #22303a; --soft: #5c6b75; --line: #e1e6ea; --good: #1d7a4c; --bad: #b3261e; --accent: #2f6690; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7f8; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", "Liberation Sans",
       sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 80px; }
header h1 { font-size: 30px; margin: 0; }
header p { color: var(--soft); margin: 4px 0 18px; }
section, nav { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 26px;
               margin: 0 0 20px; }
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
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: 13px; overflow-wrap: anywhere; }
.good, .bad { font-weight: 700; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); }
@media (max-width: 700px) { nav ol { columns: 1; } section { padding: 16px; } }
@media print { body { background: #fff; } section { break-inside: avoid-page; border: 0; } }
"""


class Html(str):
    """Text that is HTML already; any other string is escaped."""


def text(value) -> Html:
    """A value as HTML: floats with three decimals, None as a dash."""
    if isinstance(value, Html):
        return value
    return Html(escape("-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)))


def table(rows: Iterable[Sequence], head: Sequence | None = None, numbers: Sequence[int] = ()) -> Html:
    """Rows of values; without ``head`` the first column names the row. ``numbers``: columns set to the right."""
    def cell(kind: str, column: int, value) -> str:
        return f"<{kind}{' class=number' if column in numbers else ''}>{text(value)}</{kind}>"

    lines = [] if head is None else ["".join(cell("th", i, value) for i, value in enumerate(head))]
    for row in rows:
        lines.append("".join(cell("th" if head is None and i == 0 else "td", i, value) for i, value in enumerate(row)))
    return Html("<table>" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>\n")


def picture(figure: Figure, caption: str, alt: str) -> Html:
    """A figure as PNG inside the page, its caption (HTML) under it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Html(f'<figure><img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">\n'
                f"<figcaption>{caption}</figcaption></figure>\n")


def note(words: str) -> Html:
    """A paragraph (HTML) of explanation."""
    return Html(f"<p class=note>{words}</p>\n")


def heading(words: str) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{text(words)}</h3>\n")


def badge(good: bool | None) -> Html:
    """ok, look here, or a dash where there was nothing to judge."""
    if good is None:
        return Html("&ndash;")
    return Html('<span class=good>&#10003; ok</span>' if good else '<span class=bad>&#10007; look here</span>')


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole file from (heading, HTML) sections, with a table of contents."""
    contents = "".join(f'<li><a href="#s{i}">{text(name)}</a></li>\n' for i, (name, _) in enumerate(sections, 1))
    body = "".join(f'<section id="s{i}"><h2>{i}. {text(name)}</h2>\n{content}</section>\n'
                   for i, (name, content) in enumerate(sections, 1))
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{text(title)}</title>\n'
            f"<style>{CSS}</style></head>\n<body><main>\n"
            f"<header><h1>{text(title)}</h1><p>{text(subtitle)}</p></header>\n"
            f"<nav><ol>{contents}</ol></nav>\n{body}</main></body></html>\n")
