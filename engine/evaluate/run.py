"""``skysense evaluate``: the teacher's features beside three that need no training."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

from torch import Tensor

from engine.evaluate.baselines import PIXELS, STATISTICS, PixelFeatures, principal_components
from engine.evaluate.features import Extracted
from engine.evaluate.items import Items, Parts, parts
from engine.evaluate.judge import TEACHER, Comparison, Drawn, Row, SeedScores, compare, judge
from engine.evaluate.probing import PROBES, Candidate, Probed, probe
from engine.evaluate.question import Opened, Question, given
from engine.pretrained.weights import RANDOM

RANDOM_START = "random initialisation"
RAW = "pixel statistics"
PCA = "PCA of pixels"


@dataclass(frozen=True)
class Answer:
    """What the features are worth."""

    model: str
    step: int
    data: str
    fingerprint: str
    sensors: list[str]
    kind: str
    classes: list[str]
    tiles: int
    items: int
    groups: int
    parts: list[str]  # numbers of items of the first seed, one line a fold
    commonest: float  # share of the items that have the commonest class
    rows: dict[str, list[Row]]  # probe -> methods
    comparisons: list[Comparison]
    problems: list[str] = field(default_factory=list)  # tiles that could not be read


def as_json(answer: Answer) -> dict:
    """The answer as plain data."""
    record = asdict(answer)
    for comparison, plain in zip(answer.comparisons, record["comparisons"], strict=True):
        plain["verdict"] = str(comparison)
        plain["beats"] = comparison.beats
    return record


Methods = dict[str, list[list[Candidate]]]  # name -> the candidates of each seed


def evaluate(question: Question, say: Callable[[str], None]) -> Answer:
    """Extract features of all methods and probe them.

    Args:
        question: what to evaluate.
        say: takes lines of progress.

    Raises:
        ConfigError: an option is wrong.
        InputError: weights, tiles or labels are missing, damaged, or do not fit each other.
        ModelError: the model has no such sensors.
    """
    opened = Opened.of(question)
    say(opened.summary())
    pixels = opened.extract(PixelFeatures(opened.cell_grid), question.zooms[0], say, "pixels")
    items = opened.labelled.items(pixels)
    folds = opened.folds(items)
    divided = [parts(items, seed, folds=folds) for seed in range(question.seeds)]
    methods = _methods(opened, items, pixels, say)
    rows: dict[str, list[Row]] = {}
    comparisons = []
    for name in PROBES:
        rows[name] = []
        drawn: dict[str, Drawn] = {}
        for method, candidates in methods.items():
            say(f"{name}: {method}")
            row, drawn[method] = _probe(name, method, candidates, items, divided)
            rows[name].append(row)
        comparisons.append(compare(name, next(iter(rows[name][0].figures)), drawn))
    return Answer(
        model=str(question.model),
        step=opened.step,
        data=str(question.data),
        fingerprint=opened.labelled.dataset.fingerprint,
        sensors=list(opened.sensors),
        kind=items.kind,
        classes=items.classes,
        tiles=len(pixels.keys),
        items=len(items),
        groups=items.group_count,
        parts=[str(fold) for fold in divided[0]],
        commonest=float(items.targets.mean(0).max()),
        rows=rows,
        comparisons=comparisons,
        problems=list(pixels.problems.values()),
    )


def _methods(
    opened: Opened, items: Items, pixels: Extracted, say: Callable[[str], None]
) -> Methods:
    """The candidates of every method and seed; only the random model differs between seeds."""
    seeds = range(opened.question.seeds)
    teacher = opened.candidates(items, opened.question.weights, say)
    methods: Methods = {TEACHER: [teacher for _ in seeds], RANDOM_START: []}
    for seed in seeds:
        methods[RANDOM_START].append(opened.candidates(items, RANDOM, say, seed=seed))
    statistics = items.rows(pixels.vectors[STATISTICS], pixels.cells.get(STATISTICS))  # N D
    flat = items.rows(pixels.vectors[PIXELS], pixels.cells.get(PIXELS))  # N D
    methods[RAW] = [[Candidate(STATISTICS, partial(given, statistics))] for _ in seeds]
    methods[PCA] = [[Candidate(PIXELS, partial(_components, flat))] for _ in seeds]
    return methods


def _components(features: Tensor, divided: Parts) -> Tensor:
    """The principal components of the train part: N D."""
    return principal_components(features[divided.train], features)


def _probe(
    name: str,
    method: str,
    candidates: Sequence[Sequence[Candidate]],
    items: Items,
    divided: Sequence[Sequence[Parts]],
) -> tuple[Row, Drawn]:
    """One method with one probe, over all seeds and folds."""
    tested = []
    chosen = []
    for seed, folds in enumerate(divided):
        probed: list[Probed] = []
        for fold in folds:
            probed.append(probe(name, candidates[seed], items, fold, seed=seed))
            chosen.append(f"{probed[-1].candidate}, {probed[-1].setting:.3g}")
        tested.append(SeedScores.of(folds, probed))
    return judge(method, items, tested, chosen)
