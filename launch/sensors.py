"""The sensors: the built-in ones, and those of a sensors file, an archive or a dataset."""

import argparse
from pathlib import Path

from data.shards.dataset import ShardDataset
from data.tiles.archive import check_archive, is_archive
from data.tiles.definitions import Definition, read_sensors, sensors_of
from data.tiles.modalities import MODALITIES, Modality
from launch.options import add_json_option
from launch.output import check_json, show

EXAMPLES = """\
  skysense sensors
  skysense sensors sensors.json
  skysense sensors shards --json sensors.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a sensors file, an archive, or the folder or URL of shards",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the sensors, or write them as a sensors file."""
    check_json(options.json)
    if options.source is not None:
        learn(options.source)
    content = {"sensors": [Definition.of(sensor).to_json() for sensor in MODALITIES.values()]}
    show("\n\n".join(describe(sensor) for sensor in MODALITIES.values()), content, options.json)


def learn(source: str) -> None:
    """Make this process know the sensors of a file, an archive or a dataset.

    Raises:
        InputError: it is none of these, or contradicts the built-in sensors.
    """
    if Path(source).is_file() or source.endswith(".json"):
        MODALITIES.add(sensors_of(read_sensors(source)), source)
    elif is_archive(source):
        check_archive(source)
    else:
        ShardDataset.open(source)


def describe(sensor: Modality) -> str:
    """A sensor as a heading and a table of its bands."""
    origin = "own"
    if sensor.key in {built_in.key for built_in in MODALITIES.built_in}:
        origin = "built in"
    facts = [f"{sensor.gsd:g} m", sensor.unit, sensor.dtype]
    if sensor.scale != 1:
        facts.append(f"divided by {sensor.scale:g}")
    if sensor.step is not None:
        facts.append(f"steps of {sensor.step:g}")
    if sensor.nodata is not None:
        facts.append(f"nodata {sensor.nodata:g}")
    lines = [f"{sensor.key} ({origin}): {sensor.title}", f"  {', '.join(facts)}"]
    width = max(map(len, sensor.bands))
    for number, band in enumerate(sensor.bands):
        line = f"  {band:{width}}  "
        if sensor.is_measured:
            line += f"mean {sensor.mean[number]:10.6g}  std {sensor.std[number]:10.6g}"
        else:
            line += "not measured"
        lines.append(line)
    return "\n".join(lines)
