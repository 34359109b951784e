"""From settings to the objects of a run: dataset, class embeddings, student and teacher."""

import torch
from torch import Tensor, nn

from data.stream.mixture import Mixture
from data.tiles.regions import RegionTable
from engine.config.settings import Settings
from engine.errors import ConfigError
from engine.pretrained.weights import read
from models.initialise import initialise
from models.layer_norm import layer_norm_class, use_layer_norm
from models.moe.layer import MoE, canonical_names
from models.pretrained.adapt import adapt
from models.pretrained.choice import Sensor
from models.pretraining.compiled import compile_regions, describe_regions
from models.pretraining.model import Pretraining
from models.pretraining.text import encode_classes
from models.reducer import Reducer
from models.spec import ModelSpec

PROTOTYPES = "trunk.context.prototypes"
TABLES = {
    "tokens",
    "tables",
    "queries",
    "day",
}  # names of modules or parameters that hold table rows


def build_models(settings: Settings, reducer: Reducer) -> tuple[Pretraining, Pretraining]:
    """Student and teacher with equal first weights, on the CPU in float32.

    The weights follow from the seed alone: neither the world size nor ``ep_size`` changes them.
    Raises ModelError for a backend that was asked for and is not here.
    """
    norm, models = layer_norm_class(settings.layer_norm), []
    for role in ("student", "teacher"):
        model = Pretraining(
            settings.model,
            ep_size=settings.ep_size,
            reducer=reducer,
            recompute=settings.recompute,
        )
        names = canonical_names(model)
        initialise(model, settings.seed, lambda name, names=names: names.get(name, name))
        use_layer_norm(model, norm)
        if settings.compile:
            compile_regions(model)
        models.append(model)
    student, teacher = models
    return student, teacher.eval().requires_grad_(False)


def take_trained(settings: Settings, model: Pretraining, regions: RegionTable) -> list[str]:
    """Replace the first weights of ``model`` by trained ones of ``settings.init``; returns what was
    taken, by line.

    Weights that the trained model lacks, or has in another shape, stay as they were drawn.
    Prototypes go by place: a region that the trained model did not know keeps its drawn ones.
    Raises ConfigError if nothing fits.
    """
    init = settings.init
    source = read(init.path, init.weights)
    names, mine = canonical_names(model), model.state_dict()
    known = {
        name: Sensor(name) for name in settings.model.modalities if name in source.spec.modalities
    }
    found = adapt(
        source.state,
        {names.get(name, name): x.shape for name, x in mine.items()},
        source=source.spec,
        target=settings.model,
        sensors=known,
        bands=source.description["bands"],
        expert=init.expert,
        seed=settings.seed,
    )
    if not found.state:
        raise ConfigError(
            f"init.path: expected weights of this kind of model in {init.path}, found none that fit"
        )
    if PROTOTYPES in found.state:
        found.state[PROTOTYPES], note = _by_place(
            found.state[PROTOTYPES],
            mine[PROTOTYPES],
            regions,
            RegionTable.from_json(source.description["regions"]),
        )
        found.notes.append(note)
    local = {
        name: found.state[names.get(name, name)]
        for name in mine
        if names.get(name, name) in found.state
    }
    model.load_state_dict(local, strict=False)
    return [f"init: {line}" for line in [f"{init.weights} of {init.path}", *found.report()]]


def _by_place(
    trained: Tensor, drawn: Tensor, here: RegionTable, there: RegionTable
) -> tuple[Tensor, str]:
    """Prototypes (R, P, d) in the order of this dataset's regions, from those of another one."""
    rows = {cell: row for row, cell in enumerate(there.cells)}
    pairs = [(row, rows[cell]) for row, cell in enumerate(here.cells) if cell in rows]
    moved = drawn.clone()
    if pairs:
        mine, theirs = torch.tensor(pairs, dtype=torch.int64).unbind(1)
        moved[mine] = trained[theirs].to(moved.dtype)
    return moved, f"prototypes of {len(pairs)} of {len(here)} regions were trained there"


def share_context(student: Pretraining, teacher: Pretraining) -> None:
    """Let the teacher read the student's prototypes: both read, only the student's branch updates
    (supplement, A.3)."""
    if student.trunk.context is not None:
        teacher.trunk.context.prototypes = student.trunk.context.prototypes


def embed_classes(settings: Settings, dataset: Mixture) -> tuple[Tensor, str]:
    """Class embeddings (K, D) of the dataset's class table, and which tower made them."""
    prompts = [entry["text"] for entry in dataset.classes]
    text = settings.text
    return encode_classes(
        prompts,
        text.architecture,
        weights=text.weights,
        seed=settings.seed,
        width=settings.model.text_width,
    )


def check_regions(settings: Settings, dataset: Mixture) -> None:
    """Raise ConfigError when the dataset lies in more regions than the model has prototypes for."""
    context = settings.model.context
    if context is not None and len(dataset.regions) > context.regions:
        raise ConfigError(
            f"model.context.regions: expected at least {len(dataset.regions)}, the occupied regions of "
            f"{dataset.path}, found {context.regions}; raise it"
        )


def is_no_decay(name: str, parameter: nn.Parameter, spec: ModelSpec) -> bool:
    """Weight decay spares biases and norms, and all that is looked up rather than multiplied:
    tokens, prompts, queries, position and day tables. A fixed gate would shrink by it."""
    fixed = spec.moe is not None and spec.moe.fixed_gate and ".gate." in name
    return fixed or parameter.ndim < 2 or any(part in TABLES for part in name.split("."))


def is_last_layer(name: str, parameter: nn.Parameter) -> bool:
    """The prototypes of the projection heads, frozen for a warm-up."""
    return name.endswith(".last.weight")


def describe(model: Pretraining) -> list[str]:
    """Lines for the log: which paths are active, and the size of the model in this process."""
    mixtures = [module for module in model.modules() if isinstance(module, MoE)]
    count = sum(p.numel() for p in model.parameters())
    lines = [f"model: {count / 1e6:.2f} M parameters in this process", describe_regions(model)]
    return lines + (
        [f"{mixtures[0].describe()}, {len(mixtures)} blocks"] if mixtures else ["MoE: none"]
    )
