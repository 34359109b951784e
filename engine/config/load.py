"""A run's configuration: one JSON file with DeepSpeed's keys and one ``"skysense"`` object, both
strict.

Every value has one owner. Batch size, precision, clipping and optimizer are DeepSpeed's keys; all
else is typed in ``engine/config/settings.py``. The merged file is what a run folder keeps.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from data.files import write_whole
from data.suggest import suggest
from engine.config.deepspeed_keys import ACCEPTED, REFUSED
from engine.config.rules import problems
from engine.config.settings import Settings
from engine.config.typed import expected, found, has_type, parse
from engine.errors import ConfigError

__all__ = ["Config", "ConfigError", "load", "snapshot"]

_PACKAGES = (
    "torch",
    "torchvision",
    "deepspeed",
    "timm",
    "open_clip_torch",
    "webdataset",
    "zarr",
    "rasterio",
    "numpy",
    "triton",
    "tutel",
)


@dataclass(frozen=True)
class Config:
    """What ``load`` returns."""

    settings: Settings
    deepspeed: dict  # ready for deepspeed.initialize: no "skysense", batch sizes filled in
    merged: dict  # the file over its base with overrides: what the run folder keeps


def load(
    path: str | os.PathLike, overrides: list[str] = (), world_size: int | None = None
) -> Config:
    """Reads, merges and checks a configuration.

    Args: path: JSON file. ``skysense.base`` may name another one, relative to it, that it is laid
        over. overrides: ``place=value`` each, such as ``skysense.schedule.steps=100``; the value is
        JSON, else a string. world_size: ranks of the run. None leaves out the checks that need it
        (to read a finished run's file).

    Raises: ConfigError: one line on the first thing unknown, misspelt, of a wrong type or
        impossible together.
    """
    merged = _read_over_base(Path(path), ())
    for override in overrides:
        _override(merged, override)
    try:
        deepspeed = {key: value for key, value in merged.items() if key != "skysense"}
        _check_keys(deepspeed, {**ACCEPTED, "skysense": dict}, "")
        # laid over the defaults, so that naming one modality does not take the others away
        defaults = json.loads(json.dumps(asdict(Settings())))
        settings = parse(Settings, _over(defaults, merged.get("skysense", {})), "skysense")
        for problem in problems(settings, deepspeed, world_size):
            raise ConfigError(problem)  # the first one: the others often follow from it
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if world_size is not None:
        deepspeed |= {
            "train_micro_batch_size_per_gpu": deepspeed["train_batch_size"] // world_size,
            "gradient_accumulation_steps": 1,
        }
    return Config(settings, deepspeed, merged)


def _read_over_base(path: Path, seen: tuple[Path, ...]) -> dict:
    """The file's content over that of its base, if it names one."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: its chain of skysense.base comes back to itself; break it")
    content = _read(path)
    section = content.get("skysense", {})
    base = section.pop("base", None) if isinstance(section, dict) else None
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"{path}: expected str, found {found(base)} at skysense.base")
    return _over(_read_over_base(path.parent / base, (*seen, path.resolve())), content)


def _read(path: Path) -> dict:
    """A JSON object from a file; refuses repeated keys and numbers that are none."""

    def unique(pairs):
        content = dict(pairs)
        if len(content) < len(pairs):
            repeated = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
            raise ConfigError(f'{path}: the key "{repeated}" stands twice in one object; keep one')
        return content

    def refuse(constant):
        raise ConfigError(f"{path}: expected a number, found {constant}")

    try:
        content = json.loads(path.read_text(), object_pairs_hook=unique, parse_constant=refuse)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such configuration file") from error
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected an object, found {found(content)}")
    return content


def _over(base: dict, top: dict) -> dict:
    """``top`` laid over ``base``, object by object; lists and plain values are replaced."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged


def _override(merged: dict, override: str) -> None:
    """Writes one ``place=value`` into the merged file."""
    place, equals, text = override.partition("=")
    if not equals or not place:
        raise ConfigError(
            f"--set {override}: expected place=value, such as skysense.schedule.steps=100"
        )
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text  # a bare word is a string
    *above, last = place.split(".")
    for name in above:
        if merged.get(name) is None:
            merged[name] = {}
        merged = merged[name]
        if not isinstance(merged, dict):
            raise ConfigError(
                f'--set {override}: "{name}" is a value, not an object; shorten the place'
            )
    merged[last] = value


def _check_keys(content: dict, known: dict, path: str) -> None:
    """Raises ConfigError for the first DeepSpeed key that is refused, unknown, or of a wrong type."""
    for key, value in content.items():
        place = f"{path}{key}"
        if place in REFUSED:
            raise ConfigError(f"{place}: {REFUSED[place]}")
        if key not in known:
            raise ConfigError(f'unknown key "{place}"{suggest(key, known)}')
        kinds = known[key]
        table = isinstance(kinds, dict)
        if not has_type(value, dict if table else kinds):
            raise ConfigError(
                f"expected {expected(dict if table else kinds)}, found {found(value)} at {place}"
            )
        if table:
            _check_keys(value, kinds, f"{place}.")


def snapshot(config: Config, run_dir: str | os.PathLike, resume: bool = False) -> None:
    """Writes ``config.json`` (the merged file) and ``environment.json`` into the run folder. Rank 0
    only.

    Raises:
        ConfigError: the folder holds another configuration and this is not its continuation.
    """
    run_dir = Path(run_dir)
    kept = run_dir / "config.json"
    if kept.exists() and not resume and json.loads(kept.read_text()) != config.merged:
        raise ConfigError(
            f"{run_dir}: output folder of another run ({kept} differs); "
            f"choose another --run_dir, or continue that run with --resume"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_json(kept, config.merged)
    _write_json(run_dir / "environment.json", environment())


def environment() -> dict:
    """What code and packages this process runs: command, git revision (None outside a checkout),
    versions."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None  # an optional package that is not here
    return {
        "command": sys.argv,
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": versions,
        "host": platform.node(),
    }


def _git_revision() -> str | None:
    """The checkout's commit, with ``+changes`` behind it when files differ from it."""

    def git(*arguments):
        return subprocess.run(
            ("git", "-C", str(Path(__file__).parent), *arguments), capture_output=True, text=True
        )

    try:
        revision = git("rev-parse", "HEAD")
    except FileNotFoundError:
        return None  # no git on this machine
    if revision.returncode:
        return None  # not a checkout
    return revision.stdout.strip() + (
        "+changes" if git("status", "--porcelain").stdout.strip() else ""
    )


def _write_json(path: Path, content: dict) -> None:
    """Write a file of JSON whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")
