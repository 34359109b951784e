"""From a configuration file, its bases and ``--set`` overrides to one merged dictionary."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config.typed import found
from engine.errors import ConfigError


def merged_file(path: Path, overrides: Sequence[str]) -> dict:
    """The content of a file over that of its bases, with overrides written into it.

    Raises:
        ConfigError: A file is missing, is no JSON object or is its own base, or an override has no
            place to go to.
    """
    content = _read_over_base(path, seen=())
    for override in overrides:
        _override(content, override)
    return content


def lay_over(base: dict, top: dict) -> dict:
    """``top`` laid over ``base``, object by object; lists and plain values are replaced."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = lay_over(below, value)
        else:
            merged[key] = value
    return merged


def _read_over_base(path: Path, seen: tuple[Path, ...]) -> dict:
    """The file's content over that of its base, if it names one.

    Args:
        path: The file.
        seen: The files that led here, each the base of the one before.
    """
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError(f"{path}: its chain of skysense.base comes back to itself; break it")
    content = _read(path)
    section = content.get("skysense", {})
    if not isinstance(section, dict) or "base" not in section:
        return content
    name = section.pop("base")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: expected str, found {found(name)} at skysense.base")
    base = _read_over_base(path.parent / name, (*seen, resolved))
    if isinstance(base.get("skysense"), dict):
        base["skysense"].pop("description", None)  # it says what the base is for
    return lay_over(base, content)


def _read(path: Path) -> dict:
    """A JSON object from a file. Repeated keys and NaN are refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise ConfigError(f'{path}: the key "{key}" stands twice in one object; keep one')
            content[key] = value
        return content

    def refuse(constant: str) -> None:
        raise ConfigError(f"{path}: expected a number, found {constant}")

    try:
        content = json.loads(path.read_text(), object_pairs_hook=unique, parse_constant=refuse)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such configuration file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected JSON, found a file that is no text") from error
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected an object, found {found(content)}")
    return content


def _override(merged: dict, override: str) -> None:
    """Write one ``place=value`` into the merged file. Missing objects on the way are made."""
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
