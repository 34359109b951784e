"""The report of a run: one HTML file and one JSON file of figures, made from local files alone."""

import json
from dataclasses import asdict
from pathlib import Path

from matplotlib import rc_context

from data.files import write_whole
from data.pages.style import STYLE
from engine.config.load import Config
from engine.errors import ConfigError
from engine.evaluate.feature_maps import ZOOM, Maps, feature_maps
from engine.evaluate.features import STAGE_4, ModelFeatures, extract
from engine.evaluate.figures import report_figures
from engine.evaluate.run_input import run_tiles, view_input
from engine.pretrained.weights import load_pretraining
from engine.report.evaluation import Evaluation
from engine.report.run_files import RunFiles, read
from engine.report.sections import KINDS, TEMPLATES, Findings, sections
from engine.report.training_views import pick
from engine.report.verdicts import verdicts
from models.features import FUSED
from models.initialise import initialise
from models.moe.layer import canonical_names
from models.pretraining.model import Pretraining

PAGE_FILE = "report.html"
JSON_FILE = "evaluation.json"
DRAWN = 4  # samples of the picture of features
LEAST_SAMPLES = 2  # for an effective rank
SAMPLES = 512


def write(
    folder: Path,
    *,
    out: Path | None = None,
    shards: str | None = None,
    samples: int = SAMPLES,
) -> Path:
    """Write the report of a run, and ``evaluation.json`` into its folder.

    Args:
        folder: the run folder.
        out: page to write; None: ``report.html`` in the run folder.
        shards: where the dataset is now; None: where the configuration says.
        samples: evaluate at most so many.

    Returns:
        The path of the page.

    Raises:
        ConfigError: no run folder, no metrics, no whole checkpoint, or a dataset that the run did
            not use. Nothing is written.
        InputError: the dataset cannot be read. Nothing is written.
    """
    run = read(Path(folder), shards)
    if out is None:
        out = run.folder / PAGE_FILE
    out = Path(out)
    if not out.absolute().parent.is_dir() or out.is_dir():
        raise ConfigError(
            f"--out: expected the name of a file in a folder that exists, found {out}"
        )
    if samples < LEAST_SAMPLES:
        raise ConfigError(f"--samples: expected at least {LEAST_SAMPLES}, found {samples}")
    findings = examine(run, samples)
    content = report_page(findings)
    evaluation = asdict(findings.evaluation)
    evaluation["verdicts"] = [asdict(verdict) for verdict in findings.verdicts]
    write_whole(run.folder / JSON_FILE, json.dumps(evaluation, indent=2))
    write_whole(out, content)
    return out


def examine(run: RunFiles, samples: int) -> Findings:
    """Evaluate the teacher of a run and the same model before training.

    Args:
        run: the run.
        samples: evaluate at most so many.
    """
    chosen = _drawn_samples(run)
    figures, maps = _examine_model(run, load_pretraining(run.checkpoint), chosen, samples)
    first_figures, first_maps = _examine_model(run, untrained(run.config), chosen, samples)
    evaluation = Evaluation(
        checkpoint=run.checkpoint.name,
        step=run.state["step"],
        teacher=figures,
        untrained=first_figures,
    )
    answers = verdicts(
        run.history,
        run.config.settings.guard,
        prototypes=run.prototypes,
        ranks=evaluation.rank_rows(),
    )
    return Findings(
        run=run,
        verdicts=answers,
        evaluation=evaluation,
        trained_maps=maps,
        untrained_maps=first_maps,
    )


def report_page(findings: Findings) -> str:
    """The HTML of a report."""
    run = findings.run
    with rc_context(STYLE):
        return TEMPLATES.page(
            f"Training report: {run.folder.resolve().name}",
            subtitle=f"{run.state['step']} steps of SkySense V2 pre-training, from {run.folder}",
            sections=sections(findings),
        )


def untrained(config: Config) -> Pretraining:
    """The run's model with its first weights, in one process."""
    spec = config.settings.model
    model = Pretraining(spec)
    names = canonical_names(model)

    def canonical_name(name: str) -> str:
        return names.get(name, name)

    initialise(model, config.settings.seed, canonical_name, std=spec.initial_std)
    return model.eval().requires_grad_(False)


def _drawn_samples(run: RunFiles) -> list[int]:
    """Samples whose features are drawn: one of each kind, then the first of the dataset."""
    settings = run.config.settings
    picks = pick(
        run.dataset,
        KINDS,
        sensors=settings.data.frames,
        seed=settings.seed,
        batch_size=run.batch_size,
    )
    samples = [chosen.sample for chosen in picks]
    samples += range(min(DRAWN + len(picks), len(run.dataset)))
    return list(dict.fromkeys(samples))[:DRAWN]


def _examine_model(
    run: RunFiles, model: Pretraining, chosen: list[int], samples: int
) -> tuple[dict, list[Maps]]:
    """Figures and feature maps of one model.

    The model itself is not kept: two large ones would not fit.
    """
    settings = run.config.settings
    spec = settings.model
    inputs = view_input(spec, settings.data.views, run.dataset.regions)
    tiles = run_tiles(run.dataset, spec, inputs, limit=samples)
    describe = ModelFeatures(model.trunk, (STAGE_4, FUSED), grid=tiles.grid)
    figures = report_figures(extract(tiles, describe), [row.name for row in run.dataset.classes])
    larger = view_input(spec, settings.data.views, run.dataset.regions, zoom=ZOOM)
    maps = []
    for sample in chosen:
        maps.append(feature_maps(model.trunk, run.dataset, larger, sample=sample))
    return figures, maps
