"""Tables of parameters for a terminal, in millions."""

import textwrap
from collections.abc import Mapping, Sequence

from engine.cost.paper_counts import MILLION
from engine.cost.parameter_rows import TOTAL, Row, select, total, total_activated
from models.count.parameters import MODULES, Count
from models.variants import VARIANTS

WIDTH = 110  # of a line of text
VERDICTS = {None: "", True: "ok", False: "OUTSIDE"}


def paper_text(rows: Sequence[Row], counts: Mapping[str, Sequence[Count]]) -> str:
    """The paper's counts, the reasons below them, and all variants."""
    header = f"{'--spec':12}"
    for title in (*MODULES, TOTAL, "activated"):
        header += f"{title:>11}"
    lines = [
        "Parameters of SkySense V2, in millions",
        "",
        *_table(rows, "paper's count"),
        "",
        "Named models, in millions",
        "",
        header,
    ]
    for name, entries in counts.items():
        line = f"{name:12}"
        for module in (*MODULES, TOTAL):
            line += f"{_millions(total(select(entries, module))):>11}"
        line += f"{_millions(total_activated(entries)):>11}"
        lines.append(f"{line}  {VARIANTS[name].about}")
    return "\n".join(lines)


def model_text(title: str, variant: str | None, rows: Sequence[Row]) -> str:
    """One model; ``variant`` is its name among the named models, if it has one."""
    about = ""
    if variant is not None:
        about = f" ({VARIANTS[variant].about})"
    heading = f"Parameters of {title}{about}, in millions"
    return "\n".join([heading, "", *_table(rows, "part", activated=True)])


def _table(rows: Sequence[Row], first_column: str, *, activated: bool = False) -> list[str]:
    """Rows with the numbers of their reasons, then the reasons."""
    reasons = list(dict.fromkeys(row.reason for row in rows if row.reason))
    width = max(len(row.name) for row in rows) + 2
    header = f"{first_column:{width}}{'ours':>12}"
    if activated:
        header += f"{'activated':>12}"
    lines = [f"{header}{'paper':>10}{'difference':>12}{'expected':>22}"]
    for row in rows:
        line = f"{row.name:{width}}{_millions(row.ours):>12}"
        if activated:
            line += f"{_millions(row.activated):>12}"
        line += f"{_paper(row):>10}{_difference(row):>12}{_expected(row):>22}"
        line += f"  {VERDICTS[row.within]:8}"
        if row.reason:
            line += f"({reasons.index(row.reason) + 1})"
        lines.append(line.rstrip())
    if reasons:
        lines.append("")
    for number, reason in enumerate(reasons, 1):
        lines += textwrap.wrap(f"({number}) {reason}", WIDTH, subsequent_indent="    ")
    return lines


def _millions(value: int) -> str:
    """Four digits after the point: the tokenizers need them."""
    return f"{value / MILLION:,.4f}"


def _paper(row: Row) -> str:
    """The paper's count."""
    if row.paper is None:
        return "-"
    return f"{row.paper / MILLION:.2f}"


def _difference(row: Row) -> str:
    """Ours minus the paper's count."""
    if row.paper is None:
        return "-"
    return f"{(row.ours - row.paper) / MILLION:+z.2f}"


def _expected(row: Row) -> str:
    """The value to reach and how near."""
    if row.correct is None:
        return "-"
    expected = f"{row.correct / MILLION}"
    if row.tolerance:
        expected += f" +- {row.tolerance / MILLION:f}".rstrip("0")
    return expected
