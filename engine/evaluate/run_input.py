"""Whole tiles at the size that a run's global views have: what report and training look at."""

from data.stream.decode import Source
from data.stream.settings import ViewSettings
from data.stream.whole_tile import InputShape, ModelInput
from data.tiles.modalities import MODALITIES
from data.tiles.regions import RegionTable
from engine.evaluate.tiles import Tiles
from models.count.cost import map_sides
from models.features import FUSED
from models.spec import ModelSpec


def view_input(
    spec: ModelSpec, views: ViewSettings, regions: RegionTable, *, zoom: int = 1
) -> ModelInput:
    """Whole tiles shown as global views are.

    Args:
        spec: of the run's model.
        views: of the run.
        regions: of the run's dataset.
        zoom: how many times the pixels of a global view along each side.
    """
    sides = {name: zoom * views.global_pixels[name] for name in spec.modalities}
    frames = {name: modality.frames for name, modality in spec.modalities.items()}
    sensors = {name: MODALITIES[name] for name in spec.modalities}
    return ModelInput(InputShape(sides, frames), sensors, regions)


def run_tiles(dataset: Source, spec: ModelSpec, inputs: ModelInput, *, limit: int) -> Tiles:
    """The first tiles of a dataset, whose order is a shuffled one, with labels on the fusion grid.

    Args:
        dataset: of the run, or held out from it.
        spec: of the run's model.
        inputs: how tiles are shown.
        limit: most tiles.
    """
    return Tiles(
        dataset=dataset,
        samples=range(min(len(dataset), limit)),
        inputs=inputs,
        grid=map_sides(spec, inputs.shape.sides)[FUSED],
        classes=len(dataset.classes),
    )
