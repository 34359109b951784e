"""First weights of a new run from a trained model, as ``skysense.init`` asks for."""

import torch
from torch import Tensor

from data.tiles.regions import RegionTable
from engine.config.settings import Settings
from engine.errors import ConfigError
from engine.pretrained.sensors import other_inputs
from engine.pretrained.source import Source, read
from models.moe.layer import canonical_names
from models.pretrained.adapt import Adapted, adapt
from models.pretrained.choice import Sensor
from models.pretraining.model import Pretraining

PROTOTYPES = "trunk.context.prototypes"


def take_trained(settings: Settings, model: Pretraining, regions: RegionTable) -> list[str]:
    """Replace the first weights of ``model`` by trained ones, as ``settings.init`` says.

    Weights that the trained model lacks, or has in another shape, stay as they were drawn.
    Prototypes go by place: a region that the trained model did not know keeps its drawn ones.
    Nothing happens without ``settings.init.path``.

    Args:
        settings: The run's settings.
        model: The student.
        regions: The regions of this run's dataset.

    Returns:
        Lines that say what was taken.

    Raises:
        ConfigError: No weight fits.
        InputError: There are no weights at the path.
    """
    init = settings.init
    if init.path is None:
        return []
    source = read(init.path, init.weights)
    names = canonical_names(model)
    drawn = model.state_dict()
    adapted = _adapt(settings, source, {names.get(name, name): x for name, x in drawn.items()})
    if not adapted.state:
        raise ConfigError(
            f"init.path: expected weights of this kind of model in {init.path}, found none that fit"
        )
    if PROTOTYPES in adapted.state:
        trained_regions = RegionTable.from_json(source.description["regions"])
        prototypes, note = _by_place(
            adapted.state[PROTOTYPES],
            drawn[PROTOTYPES],
            trained_regions=trained_regions,
            regions=regions,
        )
        adapted.state[PROTOTYPES] = prototypes
        adapted.notes.append(note)
    local = {}
    for name in drawn:
        canonical = names.get(name, name)
        if canonical in adapted.state:
            local[name] = adapted.state[canonical]
    model.load_state_dict(local, strict=False)
    lines = [f"{init.weights} of {init.path}", *adapted.report()]
    lines += other_inputs(source.description.get("sensors", {}))
    return [f"init: {line}" for line in lines]


def _adapt(settings: Settings, source: Source, drawn: dict[str, Tensor]) -> Adapted:
    """The trained weights that fit the model, whose drawn weights have their global names."""
    sensors = {}
    for name in settings.model.modalities:
        if name in source.spec.modalities:
            sensors[name] = Sensor(name)
    return adapt(
        dict(source.state),
        {name: tensor.shape for name, tensor in drawn.items()},
        source=source.spec,
        target=settings.model,
        sensors=sensors,
        bands=source.description["bands"],
        expert=settings.init.expert,
        seed=settings.seed,
    )


def _by_place(
    trained: Tensor, drawn: Tensor, *, trained_regions: RegionTable, regions: RegionTable
) -> tuple[Tensor, str]:
    """Prototypes (R, P, D) in the order of this dataset's regions, and a line about them."""
    trained_rows = {cell: row for row, cell in enumerate(trained_regions.cells)}
    rows = []
    sources = []
    for row, cell in enumerate(regions.cells):
        if cell in trained_rows:
            rows.append(row)
            sources.append(trained_rows[cell])
    prototypes = drawn.clone()
    if rows:
        targets = torch.tensor(rows, dtype=torch.int64)
        prototypes[targets] = trained[torch.tensor(sources, dtype=torch.int64)].to(drawn.dtype)
    return prototypes, f"prototypes of {len(rows)} of {len(regions)} regions were trained there"
