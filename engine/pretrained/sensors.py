"""What trained weights know of their sensors: how pixels become the model's input."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from data.tiles.definitions import Definition, parse_sensors
from data.tiles.modalities import MODALITIES, Modality

# What weights are trained for; titles, colours and names in catalogues may change.
INPUT = ("bands", "gsd", "scale", "mean", "std")

Facts = dict[str, Any]  # a description of a sensor as JSON has it


def sensor_facts(names: Iterable[str]) -> dict[str, Facts]:
    """Key -> description of the sensors that this process knows by these keys."""
    return {name: Definition.of(MODALITIES[name]).to_json() for name in names}


def sensors_from(facts: Mapping[str, Facts], where: str) -> dict[str, Modality]:
    """The sensors of weights.

    Args:
        facts: of a checkpoint or an export. Those of earlier releases have the input alone; all of
            their sensors are built in.
        where: the folder, for messages.

    Raises:
        InputError: a description is wrong.
    """
    sensors = {}
    for name, description in facts.items():
        if "dtype" in description:
            (definition,) = parse_sensors({"sensors": [description]}, where)
            sensors[name] = definition.sensor()
        else:
            mean = tuple(description["mean"])
            sensors[name] = replace(MODALITIES[name], mean=mean, std=tuple(description["std"]))
    return sensors


def other_inputs(facts: Mapping[str, Facts]) -> list[str]:
    """What this process says differently of the sensors of some weights, one line each."""
    here = sensor_facts(name for name in facts if name in MODALITIES)
    lines = []
    for name, known in here.items():
        different = [fact for fact in INPUT if facts[name][fact] != known[fact]]
        if different:
            lines.append(f"trained with another {' and '.join(different)} of {name}")
    return lines
