"""Settings of earlier releases, in configurations and in the descriptions of trained models."""

from collections.abc import Iterator
from typing import Any

from engine.errors import ConfigError

# Place below the skysense object -> what to do about it. "*" is any name.
RENAMED = {
    "activation_checkpointing": (
        'it is now skysense.recompute: write "blocks" instead of true, "none" instead of false'
    ),
    "data.views.global_cells": (
        "it is now skysense.data.views.global_pixels, the pixels along a side by sensor: n cells "
        'were {"hr": 32 n, "ms": n, "sar": n}'
    ),
    "data.views.local_cells": (
        "it is now skysense.data.views.local_pixels, the pixels along a side by sensor: n cells "
        'were {"hr": 32 n, "ms": n, "sar": n}'
    ),
    "model.fusion.cell_metres": (
        "it is now skysense.model.fusion.cells_per_token, the fusion cells along a side of a token "
        "of the coarsest sensor: with ms and sar 1, 2 or 4 for 40, 20 or 10 m"
    ),
    "model.modalities.*.pixels_per_cell": (
        "the model knows no metres any more; remove it and set the pixels of the views in "
        "skysense.data.views.global_pixels and local_pixels"
    ),
}


def refuse_renamed(section: dict, name: str) -> None:
    """Raise ConfigError if an object has a setting that was renamed or removed.

    Args:
        section: The skysense object, or some of its entries.
        name: How messages call it, such as "skysense".
    """
    for place, advice in RENAMED.items():
        for match in _matches(section, place.split(".")):
            raise ConfigError(f"{name}.{match}: {advice}")


def _matches(section: Any, place: list[str]) -> Iterator[str]:
    """Dotted places below ``section`` that exist and fit ``place``."""
    if not isinstance(section, dict):
        return
    first, *rest = place
    names = [first]
    if first == "*":
        names = list(section)
    for name in names:
        if name not in section:
            continue
        if not rest:
            yield name
        for below in _matches(section[name], rest):
            yield f"{name}.{below}"
