"""How large the models are: the counts that the paper prints beside ours, or one model in parts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from engine.config.load import load
from engine.cost.parameter_figure import model_picture, variants_picture
from engine.cost.parameter_rows import (
    TOTAL,
    Row,
    model_rows,
    paper_rows,
    select,
    total,
    total_activated,
)
from engine.cost.parameter_text import model_text, paper_text
from engine.errors import ConfigError
from engine.plot_file import check_plot, save_plot
from models.count.parameters import MODULES, Count, count
from models.spec import ModelSpec
from models.variants import VARIANTS, name_of, named


def params_command(
    *, spec: str | None, path: Path | None, overrides: Sequence[str], plot: Path | None
) -> tuple[str, dict]:
    """Count the parameters of one model, or those that the paper prints beside ours, and draw them.

    Args:
        spec: name of a model, or None.
        path: configuration file with the model, or None. Without both the paper's counts are meant.
        overrides: ``place=value`` of the configuration.
        plot: file for the picture.

    Returns:
        The tables for a terminal, and all figures as plain values.

    Raises:
        ConfigError: both a name and a file, overrides without a file, a wrong configuration, or a
            picture that cannot be written.
        ModelError: a name that no model has.
    """
    if spec is not None and path is not None:
        raise ConfigError("params: expected --spec or --config or neither, found both")
    if overrides and path is None:
        raise ConfigError("--set: expected a configuration to change, found no --config; name one")
    check_plot(plot)
    if path is not None:
        model = load(path, list(overrides)).settings.model
        return _one_model(" ".join([path.name, *overrides]), model, plot)
    if spec is not None:
        return _one_model(spec, named(spec), plot)
    return _all_variants(plot)


def _all_variants(plot: Path | None) -> tuple[str, dict]:
    """The counts that the paper prints, and all variants."""
    counts = {name: count(variant.spec) for name, variant in VARIANTS.items()}
    rows = paper_rows(counts)
    save_plot(plot, lambda: variants_picture(counts))
    return paper_text(rows, counts), paper_record(rows, counts)


def _one_model(title: str, model: ModelSpec, plot: Path | None) -> tuple[str, dict]:
    """The parts of one model, beside the paper if it is one of the paper's."""
    variant = name_of(model)
    counts = count(model)
    rows = model_rows(counts, variant)
    save_plot(plot, lambda: model_picture(title, counts, variant))
    return model_text(title, variant, rows), model_record(title, model, rows)


def paper_record(rows: Sequence[Row], counts: Mapping[str, Sequence[Count]]) -> dict:
    """The paper's counts and all variants as plain values."""
    variants = {}
    for name, entries in counts.items():
        variant: dict[str, str | int] = {"about": VARIANTS[name].about}
        for module in (*MODULES, TOTAL):
            variant[module] = total(select(entries, module))
        variant["activated"] = total_activated(entries)
        variants[name] = variant
    return {"unit": "parameters", "rows": [row.record() for row in rows], "variants": variants}


def model_record(title: str, spec: ModelSpec, rows: Sequence[Row]) -> dict:
    """One model as plain values.

    The value of ``specification`` can stand as ``skysense.model`` in a configuration file.
    """
    return {
        "unit": "parameters",
        "model": title,
        "specification": asdict(spec),
        "rows": [row.record() for row in rows],
    }
