"""What is asked of some weights, and everything that it takes opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.stream.whole_tile import InputShape, ModelInput
from data.tiles.splits import TEST
from engine.config.typed import parse
from engine.errors import ConfigError
from engine.evaluate.feature_maps import Maps, feature_maps
from engine.evaluate.features import FEATURES, Describe, Extracted, ModelFeatures, combined, extract
from engine.evaluate.items import Items, Parts
from engine.evaluate.labelled import Labelled, common_sensors
from engine.evaluate.probing import Candidate
from engine.evaluate.tiles import BATCH, Tiles
from engine.pretrained.source import TEACHER, describe
from engine.pretrained.weights import load, regions, sensors
from models.spec import ModelSpec

FOLDS = 5  # where nobody has named a test part
MOST_PIXELS = (
    512  # along a side at zoom 1, as the cost of global attention grows with its 4th power
)
PROGRESS = 10  # lines a pass over the tiles, at most


@dataclass(frozen=True)
class Question:
    """What is asked of some weights."""

    model: Path  # run, checkpoint or export
    data: str  # folder or URL of shards
    labels: Path | None = None  # CSV; None: the labels of the shards, by cell
    weights: str = TEACHER
    sensors: tuple[str, ...] = ()  # empty: all that model and data have
    features: tuple[str, ...] = FEATURES
    zooms: tuple[float, ...] = (1.0,)  # relative to the size of ``Opened.input_shape``
    grid: int | None = None  # rows of label cells; None: as many as stage 4 has
    seeds: int = 3
    folds: int | None = None  # None: the named test part, else FOLDS
    limit: int | None = None  # tiles, evenly spaced; None: all
    device: str = "cpu"
    batch_size: int = BATCH
    workers: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.features) - set(FEATURES))
        if unknown or not self.features:
            raise ConfigError(
                f"--features: expected some of {', '.join(map(repr, FEATURES))}, found "
                f"{', '.join(map(repr, unknown)) or 'none'}"
            )
        if not self.zooms or min(self.zooms) <= 0:
            raise ConfigError(f"--zoom: expected numbers above 0, found {self.zooms}")
        for option, value, least in (
            ("--seeds", self.seeds, 1),
            ("--folds", self.folds, 2),
            ("--grid", self.grid, 1),
            ("--limit", self.limit, 3),
            ("--batch_size", self.batch_size, 1),
            ("--workers", self.workers, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{option}: expected at least {least}, found {value}")


@dataclass(frozen=True)
class Opened:
    """A question with its weights described, its dataset opened and its labels read."""

    question: Question
    labelled: Labelled
    spec: ModelSpec  # of the trained model, all sensors
    step: int
    sensors: tuple[str, ...]

    @classmethod
    def of(cls, question: Question) -> "Opened":
        """Open everything.

        Raises:
            ConfigError: an option is wrong.
            InputError: weights, dataset or labels are missing or damaged.
        """
        description = describe(question.model)
        spec = parse(ModelSpec, description["model"], "model")
        sensors(question.model)  # a damaged description ends here
        dataset = ShardDataset.open(question.data)
        labelled = Labelled.of(dataset, question.labels).thinned(question.limit)
        return cls(
            question=question,
            labelled=labelled,
            spec=spec,
            step=description["step"],
            sensors=_sensors(question, spec, labelled),
        )

    @property
    def grid(self) -> int:
        """Rows and columns of the label cells: those of the finest sensor's stage 4."""
        if self.question.grid is not None:
            return self.question.grid
        sides = self.input_shape(1.0).sides
        return max(side // self._unit(name) for name, side in sides.items())

    @property
    def cell_grid(self) -> int | None:
        """The grid if cells are classified, None if tiles are."""
        if self.labelled.labels is None:
            return self.grid
        return None

    def _unit(self, sensor: str) -> int:
        """Pixels along a cell of a sensor's stage 4."""
        return self.spec.patch * 2 ** sum(self.spec.modalities[sensor].merge)

    def input_shape(self, zoom: float) -> InputShape:
        """The size at which tiles are shown: whole cells of stage 4.

        At zoom 1 each sensor has its own pixels, or ``MOST_PIXELS`` along a side of a large tile.
        """
        cells = self.labelled.cells
        own = sensors(self.question.model)
        sides = {}
        frames = {}
        for name in self.sensors:
            modality = self.spec.modalities[name]
            unit = self._unit(name)
            pixels = zoom * min(cells * own[name].pixels, MOST_PIXELS)
            sides[name] = unit * max(1, round(pixels / unit))
            frames[name] = modality.frames
        return InputShape(sides, frames)

    def inputs(self, zoom: float) -> ModelInput:
        """What the model takes at one size."""
        path = self.question.model
        return ModelInput(self.input_shape(zoom), sensors(path), regions(path))

    def summary(self) -> str:
        """What is evaluated, in one line."""
        shape = self.input_shape(self.question.zooms[0])
        sides = ", ".join(f"{name} {side} pixels" for name, side in shape.sides.items())
        return (
            f"{self.question.model}, step {self.step}: {len(self.labelled.samples)} of "
            f"{len(self.labelled.dataset)} tiles, {sides}"
        )

    def extract(
        self, describe_batch: Describe, zoom: float, say: Callable[[str], None], title: str
    ) -> Extracted:
        """Describe every tile at one size.

        Raises:
            InputError: not one tile can be read.
        """
        tiles = Tiles(
            dataset=self.labelled.dataset,
            samples=self.labelled.samples,
            inputs=self.inputs(zoom),
            grid=self.grid,
            classes=len(self.labelled.dataset.classes),
            batch_size=self.question.batch_size,
            workers=self.question.workers,
        )
        extracted = extract(tiles, describe_batch, partial(_progress, say, title))
        if not extracted.keys:
            raise InputError(next(iter(extracted.problems.values())))
        return extracted

    def folds(self, items: Items) -> int:
        """How many folds; 0: there is a test part."""
        if self.question.folds is not None:
            return self.question.folds
        if TEST in items.splits:
            return 0
        return min(FOLDS, items.group_count)

    def candidates(
        self, items: Items, weights: str, say: Callable[[str], None], *, seed: int = 0
    ) -> list[Candidate]:
        """The features of a model at every size.

        Args:
            items: what is classified.
            weights: teacher, student or random.
            say: takes lines of progress.
            seed: of random weights.
        """
        question = self.question
        model = load(
            question.model, weights, device=question.device, modalities=self.sensors, seed=seed
        )
        describe_batch = ModelFeatures(
            model.trunk, question.features, grid=self.cell_grid, deviation=True
        )
        candidates = []
        for zoom in question.zooms:
            extracted = self.extract(describe_batch, zoom, say, f"{weights} {seed}, zoom {zoom:g}")
            for feature in question.features:
                vectors, cells = combined(extracted, feature)
                if vectors is None:
                    continue
                rows = items.rows(vectors, cells)  # N D
                candidates.append(Candidate(f"{feature}, zoom {zoom:g}", partial(given, rows)))
        return candidates

    def maps(self, weights: str, samples: Sequence[int]) -> list[Maps]:
        """Feature maps of some tiles, for a picture."""
        question = self.question
        model = load(question.model, weights, device=question.device, modalities=self.sensors)
        inputs = self.inputs(question.zooms[0])
        dataset = self.labelled.dataset
        rows = []
        for sample in samples:
            rows.append(feature_maps(model.trunk, dataset, inputs, sample=sample))
        return rows


def given(rows: Tensor, divided: Parts) -> Tensor:
    """Features that do not depend on the parts."""
    return rows


def _progress(say: Callable[[str], None], title: str, done: int, total: int) -> None:
    """Say how far a pass is, a few times."""
    mark = PROGRESS * done // total
    if mark > PROGRESS * (done - 1) // total or done == total:
        say(f"{title}: {done} of {total} tiles")


def _sensors(question: Question, spec: ModelSpec, labelled: Labelled) -> tuple[str, ...]:
    """The sensors that are shown: those asked for, or all that the model and any tile have.

    Raises:
        ConfigError: there are none, or one that was asked for is not among them.
    """
    common = common_sensors(spec, labelled)
    wanted = question.sensors or common
    if not wanted or not set(wanted) <= set(common):
        raise ConfigError(
            f"--sensors: expected some that both the model ({', '.join(spec.modalities)}) and the "
            f"tiles ({', '.join(sorted(labelled.sensors()))}) have, found "
            f"{', '.join(wanted) or 'none'}"
        )
    return tuple(wanted)
