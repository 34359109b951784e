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
    activated: int  # what one token can meet: one expert of each mixture


def count(spec: ModelSpec) -> list[Count]:
    """Every parameter of ``Pretraining`` in exactly one part, module after module.

    The geo-context prototypes count too: a buffer, but learned. The model is built on torch's meta
    device, which has shapes and no memory. The specification needs a fusion transformer, as
    pre-training does.
    """
    with torch.device("meta"):
        model = Pretraining(spec)
    sizes: dict[tuple[str, str], int] = {}
    for name, tensor in model.state_dict().items():
        where = place(name)
        sizes[where] = sizes.get(where, 0) + tensor.numel()
    counts = [
        Count(module, part, size, size // spec.moe.experts if part.endswith("experts") else size)
        for (module, part), size in sizes.items()
    ]
    return sorted(counts, key=lambda found: MODULES.index(found.module))


def place(name: str) -> tuple[str, str]:
    """Module and part of a parameter, by its name in the state dict; stages and merges count from
    1.

    Raises ValueError for a name that belongs nowhere: then the model has something that this file
        must learn.
    """
    match name.split("."):
        case ["trunk", "tokenizers", modality, *_]:
            return "tokenizers", modality
        case ["trunk", "backbone", "stages", stage, "prompts", *_]:
            return "prompts", f"stage {int(stage) + 1}"
        case ["trunk", "backbone", "stages", stage, *rest]:
            kind = " experts" if "experts" in rest else " gates" if "gate" in rest else ""
            return "backbone", f"stage {int(stage) + 1}{kind}"
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
        f"parameters: expected a name of a known module, found {name}; add it to models/count/parameters.py"
    )
