"""How large the models are: every count that the paper prints beside ours, or one model part by
part."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.config.load import load
from engine.cost.parameter_figure import model_picture, variants_picture
from engine.errors import ConfigError
from engine.plot_file import check_plot, save_plot
from models.count.parameters import MODULES, Count, count
from models.spec import ModelSpec
from models.variants import VARIANTS, name_of, named

MILLION = 1e6
WIDTH = 110  # of a line of text


@dataclass(frozen=True)
class Quantity:
    """A count of the paper, or derived from it, in millions: which parts of which model it is
    about."""

    name: str
    variants: tuple[str, ...]  # the models that it holds for; the table shows the first
    module: str  # of ``models.count.parameters``, or "total"
    parts: tuple[str, ...] = ()  # none: the whole module
    paper: float | None = None
    correct: float | None = None  # what the paper's description gives, where that is known
    tolerance: float | None = None
    reason: str = ""  # why ours and the paper's differ
    activated: bool = False


def _backbone(
    name: str, variant: str, paper: float | None, correct: float, reason: str = ""
) -> Quantity:
    """A backbone whose size follows from the paper to its last digit."""
    return Quantity(name, (variant,), "backbone", (), paper, correct, 0.01, reason)


_BOTH = ("skysense_v2", "dense")  # the two columns of table 6
_GATES = "the paper's row fits gates of 8 experts"
_ALIKE = (
    "the paper's rows fit 8 experts of width 1408 for every block, though two have width 2816, with the network "
    "that they replace still there"
)
_OPEN = "the paper does not say what is in it"
_SUM = "the differences in fusion and others"
QUANTITIES = (
    Quantity(
        "tokenizers", _BOTH, "tokenizers", (), 0.09, 0.0855, 0.00005, "two digits in the paper"
    ),
    Quantity(
        "tokenizer hr", _BOTH, "tokenizers", ("hr",), 0.02, 0.017248, 0.0, "two digits in the paper"
    ),
    Quantity(
        "tokenizer ms", _BOTH, "tokenizers", ("ms",), 0.06, 0.056672, 0.0, "two digits in the paper"
    ),
    Quantity(
        "tokenizer sar",
        _BOTH,
        "tokenizers",
        ("sar",),
        0.01,
        0.011616,
        0.0,
        "two digits in the paper",
    ),
    _backbone("backbone without experts", "dense", 661.40, 661.40),
    _backbone("backbone, 8 experts", "skysense_v2", 1994.10, 1994.10),
    Quantity(
        "backbone, activated",
        ("skysense_v2",),
        "backbone",
        (),
        661,
        661,
        0.5,
        "whole millions in the paper; ours is the backbone without experts and the six gates",
        activated=True,
    ),
    _backbone("backbone, 4 experts", "experts_4", 1232.61, 1232.56, _GATES),
    _backbone("backbone, 16 experts", "experts_16", 3517.08, 3517.17, _GATES),
    _backbone("backbone, experts in last 2", "moe_last_2", 1486.37, 1549.79, _ALIKE),
    _backbone("backbone, experts in last 4", "moe_last_4", 1740.23, 1771.94, _ALIKE),
    _backbone("backbone, experts in last 8", "moe_last_8", 2247.97, 2216.26, _ALIKE),
    _backbone(
        "backbone, experts spread",
        "moe_spread",
        None,
        1577.69,
        "table 13 gives no count; it does not compare models of equal size",
    ),
    Quantity(
        "prompts",
        _BOTH,
        "prompts",
        (),
        9.94,
        9.945,
        0.025,
        "the layout is ours: 4 tokens a modality and a projection a stage, which gives 9.92 to 9.97",
    ),
    Quantity(
        "fusion, layers and a projection",
        _BOTH,
        "fusion",
        ("layers", "projection hr"),
        None,
        305.2,
        0.05,
        "the part of the fusion module that the paper describes",
    ),
    Quantity(
        "fusion",
        _BOTH,
        "fusion",
        (),
        347.01,
        None,
        None,
        f"{_OPEN}; ours: 24 layers, a projection a modality, day table, token, norm",
    ),
    Quantity(
        "geo-context prototypes",
        _BOTH,
        "others",
        ("geo-context prototypes",),
        None,
        209.7,
        0.05,
        "inside the paper's others: 4096 regions of 100 prototypes",
    ),
    Quantity(
        "others",
        _BOTH,
        "others",
        (),
        490.49,
        None,
        None,
        f"{_OPEN}; ours: prototypes, nine projection heads, query decoder, projections",
    ),
    Quantity("total without experts", ("dense",), "total", (), 1508.93, None, None, _SUM),
    Quantity("total", ("skysense_v2",), "total", (), 2841.63, None, None, _SUM),
)


@dataclass(frozen=True)
class Row:
    """One line of a table; all numbers are parameters, not millions."""

    name: str
    ours: int
    activated: int
    paper: int | None = None
    correct: int | None = None
    tolerance: int | None = None
    reason: str | None = None

    @property
    def within(self) -> bool | None:
        """Whether ours is as near to the correct value as it must be; None where that is not known."""
        return None if self.correct is None else abs(self.ours - self.correct) <= self.tolerance

    def record(self) -> dict:
        """Plain values, ``within`` among them."""
        return {**asdict(self), "within": self.within}


def params_command(
    *, spec: str | None, path: Path | None, overrides: Sequence[str], plot: Path | None
) -> tuple[str, dict]:
    """Count the parameters of one model, or those that the paper prints beside ours, and draw them.

    Args:
        spec: Name of a model, or None.
        path: Configuration file with the model, or None. Without both the paper's counts are meant.
        overrides: ``place=value`` of the configuration.
        plot: File for the picture.

    Returns:
        The tables for a terminal, and all figures as plain values.

    Raises:
        ConfigError: Both a name and a file, overrides without a file, a wrong configuration, or a
            picture that cannot be written.
        ModelError: A name that no model has.
    """
    if spec is not None and path is not None:
        raise ConfigError("params: expected --spec or --config or neither, found both")
    if overrides and path is None:
        raise ConfigError("--set: expected a configuration to change, found no --config; name one")
    check_plot(plot)
    if spec is None and path is None:
        counts = {name: count(variant.spec) for name, variant in VARIANTS.items()}
        rows = paper_rows(counts)
        save_plot(
            plot,
            lambda: variants_picture(counts, {name: _paper(name, "total") for name in VARIANTS}),
        )
        return paper_text(rows, counts), paper_record(rows, counts)
    found = named(spec) if path is None else load(path, list(overrides)).settings.model
    title = spec if path is None else " ".join([path.name, *overrides])
    name, counts = name_of(found), count(found)
    rows = model_rows(counts, name)
    save_plot(
        plot,
        lambda: model_picture(title, counts, {module: _paper(name, module) for module in MODULES}),
    )
    return model_text(title, name, rows), model_record(title, found, rows)


def paper_rows(counts: dict[str, list[Count]]) -> list[Row]:
    """Every quantity of the paper, from the parts of all variants."""
    return [
        _row(
            quantity.name,
            select(counts[quantity.variants[0]], quantity.module, quantity.parts),
            quantity,
        )
        for quantity in QUANTITIES
    ]


def model_rows(counts: Sequence[Count], name: str | None) -> list[Row]:
    """Modules, their parts and the total of one model; beside the paper where it is the variant
    ``name`` of it."""
    keys = [
        key
        for module in MODULES
        for key in (
            (module, ()),
            *((module, (part.part,)) for part in counts if part.module == module),
        )
    ]
    known = {
        (quantity.module, quantity.parts): quantity
        for quantity in QUANTITIES
        if name in quantity.variants and not quantity.activated
    }
    return [
        _row(" ".join((module, *parts)), select(counts, module, parts), known.get((module, parts)))
        for module, parts in [*keys, ("total", ())]
    ]


def select(counts: Sequence[Count], module: str, parts: Sequence[str] = ()) -> list[Count]:
    """The given parts of a module; all of them if none is given, of all modules for "total"."""
    return [
        found
        for found in counts
        if module in (found.module, "total") and (not parts or found.part in parts)
    ]


def total(counts: Sequence[Count], what: str = "parameters") -> int:
    """Sum over parts of ``parameters`` or ``activated``."""
    return sum(getattr(found, what) for found in counts)


def _row(name: str, counts: Sequence[Count], quantity: Quantity | None) -> Row:
    """Ours, and what the paper says about it, if it does."""
    ours, activated = total(counts), total(counts, "activated")
    if quantity is None:
        return Row(name, ours, activated)
    paper, correct, tolerance = (
        None if value is None else round(value * MILLION)
        for value in (quantity.paper, quantity.correct, quantity.tolerance)
    )
    return Row(
        name,
        activated if quantity.activated else ours,
        activated,
        paper,
        correct,
        tolerance,
        quantity.reason or None,
    )


def _paper(name: str | None, module: str) -> int | None:
    """The paper's count of a whole module, or of the total, of a variant."""
    return next(
        (
            round(quantity.paper * MILLION)
            for quantity in QUANTITIES
            if name in quantity.variants
            and (quantity.module, quantity.parts, quantity.activated) == (module, (), False)
            and quantity.paper is not None
        ),
        None,
    )


def paper_record(rows: Sequence[Row], counts: dict[str, list[Count]]) -> dict:
    """The paper's counts and all variants as plain values."""
    variants = {
        name: {
            "about": VARIANTS[name].about,
            **{module: total(select(found, module)) for module in MODULES},
            "total": total(found),
            "activated": total(found, "activated"),
        }
        for name, found in counts.items()
    }
    return {"unit": "parameters", "rows": [row.record() for row in rows], "variants": variants}


def model_record(title: str, spec: ModelSpec, rows: Sequence[Row]) -> dict:
    """One model as plain values; ``specification`` can stand as ``skysense.model`` in a
    configuration file."""
    return {
        "unit": "parameters",
        "model": title,
        "specification": asdict(spec),
        "rows": [row.record() for row in rows],
    }


def paper_text(rows: Sequence[Row], counts: dict[str, list[Count]]) -> str:
    """The paper's counts, the reasons below them, and all variants, for a terminal."""
    lines = [
        "Parameters of SkySense V2, in millions",
        "",
        *_table(rows, "paper's count"),
        "",
        "Named models, in millions",
        "",
        f"{'--spec':12}" + "".join(f"{title:>11}" for title in (*MODULES, "total", "activated")),
    ]
    for name, found in counts.items():
        values = [total(select(found, module)) for module in (*MODULES, "total")] + [
            total(found, "activated")
        ]
        lines.append(
            f"{name:12}"
            + "".join(f"{_millions(value):>11}" for value in values)
            + f"  {VARIANTS[name].about}"
        )
    return "\n".join(lines)


def model_text(title: str, name: str | None, rows: Sequence[Row]) -> str:
    """One model for a terminal."""
    about = f" ({VARIANTS[name].about})" if name is not None else ""
    return "\n".join(
        [f"Parameters of {title}{about}, in millions", "", *_table(rows, "part", activated=True)]
    )


def _table(rows: Sequence[Row], what: str, activated: bool = False) -> list[str]:
    """Rows with the numbers of their reasons, then the reasons."""
    reasons = list(dict.fromkeys(row.reason for row in rows if row.reason))
    width = max(len(row.name) for row in rows) + 2
    extra = f"{'activated':>12}" if activated else ""
    lines = [f"{what:{width}}{'ours':>12}{extra}{'paper':>10}{'difference':>12}{'expected':>22}"]
    for row in rows:
        paper = "-" if row.paper is None else f"{row.paper / MILLION:.2f}"
        apart = "-" if row.paper is None else f"{(row.ours - row.paper) / MILLION:+z.2f}"
        extra = f"{_millions(row.activated):>12}" if activated else ""
        note = f"({reasons.index(row.reason) + 1})" if row.reason else ""
        verdict = {None: "", True: "ok", False: "OUTSIDE"}[row.within]
        lines.append(
            f"{row.name:{width}}{_millions(row.ours):>12}{extra}{paper:>10}{apart:>12}{_expected(row):>22}"
            f"  {verdict:8}{note}".rstrip()
        )
    for number, reason in enumerate(reasons, 1):
        lines += ["", *textwrap.wrap(f"({number}) {reason}", WIDTH, subsequent_indent="    ")][
            number > 1 :
        ]
    return lines


def _millions(value: int) -> str:
    """Four digits after the point: the tokenizers need them."""
    return f"{value / MILLION:,.4f}"


def _expected(row: Row) -> str:
    """The value to reach and how near."""
    if row.correct is None:
        return "-"
    return f"{row.correct / MILLION}" + (
        f" +- {row.tolerance / MILLION:f}".rstrip("0") if row.tolerance else ""
    )
