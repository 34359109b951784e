"""Whole tiles at the size that a run's global views have: what report and training look at."""

from data.stream.decode import Source
from data.stream.settings import ViewSettings
from data.stream.whole_tile import InputShape, ModelInput
from data.tiles.modalities import MODALITIES
from data.tiles.regions import RegionTable
from engine.evaluate.tiles import Tiles
from models.spec import CELL_METRES, ModelSpec


def view_input(
    spec: ModelSpec, views: ViewSettings, regions: RegionTable, *, factor: int = 1
) -> ModelInput:
    """Whole tiles shown as global views are.

    Args:
        spec: of the run's model.
        views: of the run.
        regions: of the run's dataset.
        factor: how many times a global view's pixels along each side.
    """
    sides = {}
    frames = {}
    for name, modality in spec.modalities.items():
        sides[name] = factor * views.global_cells * modality.pixels_per_cell
        frames[name] = modality.frames
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
    grid = 1
    for name, modality in spec.modalities.items():
        cells = inputs.shape.sides[name] / modality.pixels_per_cell
        if spec.fusion is not None:
            grid = max(grid, round(cells * CELL_METRES / spec.fusion.cell_metres))
    return Tiles(
        dataset=dataset,
        samples=range(min(len(dataset), limit)),
        inputs=inputs,
        grid=grid,
        classes=len(dataset.classes),
    )
