"""An answer as a picture: bars with intervals, and features as colours beside some test tiles."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.pages.style import FAINT, FUSED, PLAIN, WIDTH
from data.tiles.splits import TEST
from engine.evaluate.feature_maps import Column, fill_features
from engine.evaluate.features import STAGE_3, STAGE_4
from engine.evaluate.judge import TEACHER, Row
from engine.evaluate.question import Opened, Question
from engine.evaluate.run import Answer
from engine.pretrained.weights import RANDOM

BARS_HEIGHT = 2.6  # inches
TILES = 4


def draw(question: Question, answer: Answer) -> Figure:
    """The first measure of both probes, then a row of maps for each of some test tiles."""
    opened = Opened.of(question)
    samples = _shown(opened)
    side = WIDTH / 5 - 0.1
    heights = (BARS_HEIGHT, 0.3 + side * len(samples))
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = top.subplots(1, len(answer.rows), squeeze=False)[0]
    for axis, (probe, rows) in zip(panels, answer.rows.items()):
        _bars(axis, probe, rows)
    trained = opened.maps(question.weights, samples)
    untrained = opened.maps(RANDOM, samples)
    sensor = opened.sensors[0]
    columns = []
    for stage in (STAGE_3, STAGE_4):
        name = f"{sensor}, {stage}"
        columns.append(Column(f"{name}, {question.weights}", trained, name))
        columns.append(Column(f"{name}, random", untrained, name))
    fill_features(bottom, trained, columns)
    return figure


def _shown(opened: Opened) -> list[int]:
    """Some test tiles, or some tiles where there is no test part, evenly spaced."""
    labelled = opened.labelled
    samples = [sample for sample in labelled.samples if labelled.split(sample) == TEST]
    samples = samples or labelled.samples
    count = min(TILES, len(samples))
    return [samples[number * len(samples) // count] for number in range(count)]


def _bars(axis: Axes, probe: str, rows: Sequence[Row]) -> None:
    """A bar for each method."""
    measure = next(iter(rows[0].figures))
    for place, row in enumerate(rows):
        figure = row.figures[measure]
        shade = FUSED if row.method == TEACHER else FAINT
        axis.barh(place, 100 * figure.value, color=shade)
        below = 100 * max(0.0, figure.value - figure.low)
        above = 100 * max(0.0, figure.high - figure.value)
        axis.errorbar(
            100 * figure.value, place, xerr=[[below], [above]], color=PLAIN, capsize=3, linewidth=1
        )
    axis.set_yticks(range(len(rows)), [row.method for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel(f"{measure}, %")
    axis.set_title(f"{probe}, with 95 % intervals")
