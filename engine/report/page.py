"""The report of a run: one HTML file and one JSON file of figures, made from local files alone."""

import json
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context

from data.files import write_whole
from data.pages.page import page
from data.pages.style import STYLE
from engine.config.load import Config
from engine.errors import ConfigError
from engine.evaluate.probes import evaluate, extract
from engine.pretrained.weights import load_pretraining
from engine.report.pictures import Maps, feature_maps, pick
from engine.report.run_files import RunFiles, read
from engine.report.sections import sections
from engine.report.verdicts import verdicts
from models.initialise import initialise
from models.moe.layer import canonical_names
from models.pretraining.model import Pretraining

KINDS = ((True, True), (False, True), (True, False))  # (has hr, has a series): samples to draw
PICTURES = 4  # rows of the picture of features


@dataclass(frozen=True)
class Seen:
    """What one model makes of the data."""

    figures: dict  # of probes.evaluate
    maps: list[Maps]


def write(
    folder: Path, out: Path | None = None, shards: str | None = None, samples: int = 512
) -> Path:
    """Write the report of the run in ``folder``, and ``evaluation.json`` into it; returns the
    report's path.

    Args:
        out: where to; None: ``report.html`` in the run folder.
        shards: where the dataset lies now, if not where the configuration says.
        samples: at most so many are evaluated.

    Raises: ConfigError: no run folder, no metrics, no whole checkpoint, or a dataset that the run
        did not use. InputError: the dataset cannot be read. In both cases nothing is written.
    """
    run = read(Path(folder), shards)
    out = Path(out or run.folder / "report.html")
    if not out.absolute().parent.is_dir() or out.is_dir():
        raise ConfigError(
            f"--out: expected the name of a file in a folder that exists, found {out}"
        )
    if samples < 2:
        raise ConfigError(f"--samples: expected at least 2, found {samples}")
    chosen = _chosen(run)
    trained = _look(run, load_pretraining(run.checkpoint), chosen, samples)
    first = _look(run, untrained(run.config), chosen, samples)
    evaluation = {
        "checkpoint": run.checkpoint.name,
        "step": run.state["step"],
        "teacher": trained.figures,
        "untrained": first.figures,
    }
    settings = run.config.settings
    answers = verdicts(run.records, settings.guard, settings.model.head.prototypes, evaluation)
    with rc_context(STYLE):
        content = page(
            f"Training report: {run.folder.resolve().name}",
            f"{run.state['step']} steps of SkySense V2 pre-training, from {run.folder}",
            sections(run, answers, evaluation, trained.maps, first.maps),
        )
    figures = evaluation | {"verdicts": [vars(answer) for answer in answers]}
    write_whole(run.folder / "evaluation.json", json.dumps(figures, indent=2))
    write_whole(out, content)
    return out


def untrained(config: Config) -> Pretraining:
    """The run's model with its first weights, in one process."""
    model = Pretraining(config.settings.model)
    names = canonical_names(model)
    initialise(model, config.settings.seed, lambda name: names.get(name, name))
    return model.eval().requires_grad_(False)


def _chosen(run: RunFiles) -> list[int]:
    """Samples whose features are drawn: one of each kind, filled up in the order of the dataset."""
    picks = [
        chosen.sample
        for chosen in pick(run.dataset, run.config.settings.seed, run.batch_size, KINDS)
    ]
    return list(dict.fromkeys(picks + list(range(min(PICTURES + len(picks), len(run.dataset))))))[
        :PICTURES
    ]


def _look(run: RunFiles, model: Pretraining, chosen: list[int], samples: int) -> Seen:
    """One model's figures and feature maps; the model itself is let go, two large ones would not
    fit."""
    settings, classes = run.config.settings.data, len(run.dataset.classes)
    found = evaluate(extract(model, run.dataset, settings, classes, samples), classes)
    cells = 2 * settings.views.global_cells
    return Seen(
        found, [feature_maps(model, run.dataset, settings, sample, cells) for sample in chosen]
    )
