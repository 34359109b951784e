"""The report's sections, in order. The text of each is a template in ``templates/``."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data.pages.outlines import CREDIT
from data.pages.page import Section, Templates
from data.pages.region_map import region_map
from engine.evaluate.feature_maps import ZOOM, Column, Maps, draw_features
from engine.evaluate.features import STAGE_3, STAGE_4
from engine.report import curves, expert_maps
from engine.report.evaluation import Evaluation
from engine.report.history import History
from engine.report.run_files import RunFiles
from engine.report.training_views import Kind, draw_views, pick
from engine.report.verdicts import Verdict, ends
from models.features import FUSED

TEMPLATES = Templates("engine.report")
KINDS = (  # samples whose views and features are drawn
    Kind(hr=True, series=True),
    Kind(hr=False, series=True),
    Kind(hr=True, series=False),
)
LISTED = 40  # lines of a table that may be long, or steps of a list


@dataclass(frozen=True)
class Findings:
    """A run and what was made of it."""

    run: RunFiles
    verdicts: list[Verdict]
    evaluation: Evaluation
    trained_maps: list[Maps]
    untrained_maps: list[Maps]


@dataclass(frozen=True)
class TermRow:
    """A loss term at both ends of a run; None where there was nothing to measure."""

    title: str
    first: str | None
    last: str | None
    change: str | None


def sections(findings: Findings) -> list[Section]:
    """All sections of a report."""
    run = findings.run
    return [
        _summary(findings),
        _losses(run),
        TEMPLATES.section("Schedules", "schedules.html", figure=curves.schedules(run.history)),
        TEMPLATES.section(
            "Gradient and speed",
            "speed.html",
            figure=curves.speed(run.history),
            clipping=run.config.deepspeed.get("gradient_clipping"),
        ),
        _teacher(run),
        _experts(run),
        _views(run),
        _features(findings),
        _map(run),
        TEMPLATES.section(
            "Evaluation",
            "evaluation.html",
            evaluation=findings.evaluation,
            teacher=findings.evaluation.teacher,
            held_out=curves.evaluations(run.history),
            decimals=decimals,
            percent=percent,
        ),
        _replaced(run),
    ]


def _summary(findings: Findings) -> Section:
    """Verdicts, what ran, on what data, where the losses ended."""
    run = findings.run
    with_modality: Counter[str] = Counter()
    with_labels = 0
    for sample in range(len(run.dataset)):
        entry = run.dataset.entry(sample)
        with_modality.update(entry.modalities)
        if "labels" in entry.members:
            with_labels += 1
    return TEMPLATES.section(
        "Summary",
        "summary.html",
        verdicts=findings.verdicts,
        run=run,
        settings=run.config.settings,
        environment=run.environment,
        packages=_packages(run.environment),
        duration=duration(float(np.nansum(run.history.values("seconds")))),
        tenth=run.history.tenth,
        terms=term_rows(run.history),
        dataset=run.dataset,
        with_modality=with_modality,
        with_labels=with_labels,
    )


def _packages(environment: dict) -> str:
    """The versions that ran."""
    versions = [f"Python {environment['python']}"]
    for name, version in environment["packages"].items():
        if version:
            versions.append(f"{name} {version}")
    return ", ".join(versions)


def term_rows(history: History) -> list[TermRow]:
    """Every loss term at both ends of the run."""
    rows = [_term_row("total", history.total(), history.tenth)]
    for term in history.loss_terms():
        rows.append(_term_row(term.name, history.term(term), history.tenth))
    return rows


def _term_row(title: str, values: np.ndarray, count: int) -> TermRow:
    """The means of the first and the last ``count`` values, and their difference."""
    first, last = ends(values, count)
    change = None
    if first and math.isfinite(first) and math.isfinite(last):
        change = f"{100 * (last - first) / abs(first):+.1f} %"
    return TermRow(title, decimals(first), decimals(last), change)


def _losses(run: RunFiles) -> Section:
    moe = run.config.settings.model.moe
    moe_layers = 0
    if moe:
        moe_layers = len(moe.blocks)
    return TEMPLATES.section(
        "Losses",
        "losses.html",
        figure=curves.losses(run.history, run.prototypes),
        log_k=f"{math.log(run.prototypes):.2f}",
        moe_layers=moe_layers,
    )


def _teacher(run: RunFiles) -> Section:
    figure = None
    if run.history.teacher_heads():
        figure = curves.teacher(run.history, run.prototypes)
    return TEMPLATES.section(
        "Teacher",
        "teacher.html",
        figure=figure,
        prototypes=run.prototypes,
        log_k=f"{math.log(run.prototypes):.2f}",
    )


def _experts(run: RunFiles) -> Section:
    settings = run.config.settings.model
    if settings.moe is None or not run.history.has_experts:
        return TEMPLATES.section("Experts", "no_experts.html")
    modalities = list(settings.modalities)
    dropped = None
    if run.history.token_kinds():  # older runs did not record them
        dropped = curves.dropped(run.history, run.config.settings.guard.dropped)
    return TEMPLATES.section(
        "Experts",
        "experts.html",
        shares=expert_maps.expert_shares(run.history, modalities),
        history=expert_maps.expert_history(run.history, modalities),
        dropped=dropped,
        steps=run.history.tenth,
        even_share=f"{100 / settings.moe.experts:.1f} %",
    )


def _views(run: RunFiles) -> Section:
    settings = run.config.settings
    drawn = []
    picks = pick(
        run.dataset,
        KINDS,
        sensors=settings.data.frames,
        seed=settings.seed,
        batch_size=run.batch_size,
    )
    for chosen in picks:
        figure = draw_views(run.dataset, settings.data, chosen, settings.model, seed=settings.seed)
        drawn.append((run.dataset.entry(chosen.sample).key, figure))
    return TEMPLATES.section("Training views", "views.html", drawn=drawn)


def _features(findings: Findings) -> Section:
    settings = findings.run.config.settings
    trained = findings.trained_maps
    modalities = list(settings.model.modalities)
    maps = [f"{modalities[0]}, {STAGE_3}"]
    maps += [f"{name}, {STAGE_4}" for name in modalities]
    maps.append(FUSED)
    columns = [Column(name, trained, name) for name in maps]
    sides = []
    for name in modalities:
        sides.append(f"{name} {ZOOM * settings.data.views.global_pixels[name]}")
    columns.append(Column("fused, untrained", findings.untrained_maps, FUSED))
    return TEMPLATES.section(
        "Features as colours",
        "features.html",
        figure=draw_features(trained, columns),
        zoom=ZOOM,
        pixels=", ".join(sides),
    )


def _map(run: RunFiles) -> Section:
    regions = run.dataset.regions
    counts = [0] * len(regions)
    points = []
    for sample in range(len(run.dataset)):
        place = run.dataset.entry(sample).place
        if place is not None:
            counts[run.dataset.region(sample)] += 1
            points.append(place)
    figure = None
    if points:
        figure = region_map(regions.cells, counts, np.array(points))
    return TEMPLATES.section(
        "Where the data lies",
        "map.html",
        figure=figure,
        credit=CREDIT,
        unknown=len(run.dataset) - len(points),
    )


def _replaced(run: RunFiles) -> Section:
    """Skipped updates, rollbacks, faults of reading, quarantined samples."""
    skipped = run.history.skipped_steps
    faults: Counter[str] = Counter()
    for record in run.faults:
        for kind, count in record.items():
            if kind != "step":
                faults[kind] += count
    return TEMPLATES.section(
        "Replaced samples and skipped steps",
        "replaced.html",
        skipped=", ".join(map(str, skipped[:LISTED])),
        skipped_hidden=max(0, len(skipped) - LISTED),
        rollbacks=run.rollbacks,
        faults=", ".join(f"{count} x {kind}" for kind, count in sorted(faults.items())),
        quarantine=run.quarantine,
        listed=run.quarantine[:LISTED],
    )


def decimals(value: float | None) -> str | None:
    """Three decimals for a table; None for what could not be measured."""
    if value is None or math.isnan(value):
        return None
    return f"{value:.3f}"


def percent(share: float | None) -> str | None:
    """A share for a table; None for what could not be measured."""
    if share is None:
        return None
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s"
