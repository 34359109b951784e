"""Parameters of a model by module, counted on the model itself."""

from dataclasses import dataclass

import torch

from models.pretraining.model import Pretraining
from models.spec import ModelSpec

MODULES = ("tokenizers", "backbone", "prompts", "fusion", "others")  # the rows of table 6


@dataclass(frozen=True)
class Count:
    """Parameters of one part of one module."""

    module: str  # one of MODULES
    part: str
    parameters: int
    activated: int  # what one token can meet: one expert of each MoE block


def count(spec: ModelSpec) -> list[Count]:
    """Count every parameter of ``Pretraining`` in exactly one part, module after module.

    The geo-context prototypes count too: they are a buffer, but learned. The model is built on
    torch's meta device, which has shapes and no memory.

    Raises:
        ModelError: the specification has no fusion transformer, which pre-training needs.
    """
    with torch.device("meta"):
        model = Pretraining(spec)
    sizes: dict[tuple[str, str], int] = {}
    for name, tensor in model.state_dict().items():
        module_and_part = place(name)
        sizes[module_and_part] = sizes.get(module_and_part, 0) + tensor.numel()
    counts = []
    for (module, part), size in sizes.items():
        activated = size
        if spec.moe is not None and part.endswith("experts"):
            activated = size // spec.moe.experts
        counts.append(Count(module, part, parameters=size, activated=activated))
    return sorted(counts, key=lambda entry: MODULES.index(entry.module))


def place(name: str) -> tuple[str, str]:
    """Module and part of a parameter, by its name in the state dict.

    Stages and merges are counted from 1.

    Raises:
        ValueError: no module has this name; the model has something that this function must learn.
    """
    match name.split("."):
        case ["trunk", "tokenizers", modality, *_]:
            return "tokenizers", modality
        case ["trunk", "backbone", "stages", stage, "prompts", *_]:
            return "prompts", f"stage {int(stage) + 1}"
        case ["trunk", "backbone", "stages", stage, *rest]:
            return "backbone", f"stage {int(stage) + 1}{_kind(rest)}"
        case ["trunk", "backbone", "merges", stage, *_]:
            return "backbone", f"merging {int(stage) + 1}"
        case ["trunk", "backbone", "norm", _]:
            return "backbone", "last norm"
        case ["trunk", "fusion", "layers", *_]:
            return "fusion", "layers"
        case ["trunk", "fusion", "projections", modality, _]:
            return "fusion", f"projection {modality}"
        case ["trunk", "fusion", "day", _]:
            return "fusion", "day table"
        case ["trunk", "fusion", "token"] | ["trunk", "fusion", "norm", _]:
            return "fusion", "token and norm"
        case ["trunk", "context", "prototypes"]:
            return "others", "geo-context prototypes"
        case ["trunk", "context", "projection", _]:
            return "others", "geo-context projection"
        case ["heads", feature, level, *_]:
            return "others", f"head {feature} {level}"
        case ["query_head", *_]:
            return "others", "head queries"
        case ["decoder", *_]:
            return "others", "query decoder"
        case ["text_projection", _]:
            return "others", "text projection"
    raise ValueError(
        f"parameters: expected a name of a known module, found {name}; "
        "add it to models/count/parameters.py"
    )


def _kind(names: list[str]) -> str:
    """Suffix of the parts of a mixture of experts."""
    if "experts" in names:
        return " experts"
    if "gate" in names:
        return " gates"
    return ""
