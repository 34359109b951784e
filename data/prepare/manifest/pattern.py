"""Patterns of paths: ``images/{class}/{name}.webp`` finds files, and what their names say.

``{field}`` stands for any text in a part of a path, and takes it; ``*`` and ``?`` stand for any
text and any character, ``**`` for folders at any depth. Names that begin with a dot are passed
over.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
ANY_DEPTH = "**"
SPECIAL = re.compile(r"[*?]|" + FIELD.pattern)
MOST_SHOWN = 3  # names that an error shows


@dataclass(frozen=True)
class Match:
    """A file or folder that a pattern finds."""

    path: str  # as the pattern has it, with slashes
    fields: dict[str, str]


class Pattern:
    """A path with fields and wildcards.

    Args:
        text: the pattern.
        forms: regular expressions for the texts of some fields; others are any text.
    """

    def __init__(self, text: str, forms: Mapping[str, str]) -> None:
        self.text = text
        self._parts = text.split("/")
        self._matchers = [_matcher(part, forms) for part in self._parts]

    @property
    def fields(self) -> set[str]:
        """The names of its fields."""
        return set(FIELD.findall(self.text))

    def matches(self, folder: Path) -> list[Match]:
        """All files and folders that the pattern finds, in the order of their paths.

        Args:
            folder: the pattern is relative to it.
        """
        found = {match.path: match for match in self._walk(folder, "", 0, {})}
        return [found[path] for path in sorted(found)]

    def nearest(self, folder: Path) -> str:
        """What lies where the pattern leads, in words, for a pattern that finds nothing."""
        place = folder
        for part in self._parts[:-1]:
            if SPECIAL.search(part):
                break
            if not (place / part).is_dir():
                return f"there is no folder {place / part}"
            place = place / part
        names = sorted(entry.name for entry in os.scandir(place) if not _is_hidden(entry.name))
        if not names:
            return f"{place} is empty"
        shown = ", ".join(names[:MOST_SHOWN])
        if len(names) > MOST_SHOWN:
            shown += f" and {len(names) - MOST_SHOWN} more"
        return f"{place} holds {shown}"

    def _walk(
        self, folder: Path, done: str, number: int, fields: dict[str, str]
    ) -> Iterator[Match]:
        """Matches under a folder of the parts from ``number`` on."""
        part = self._parts[number]
        is_last = number == len(self._parts) - 1
        if not SPECIAL.search(part):
            path = f"{done}{part}"
            if is_last and (folder / path).exists():
                yield Match(path, fields)
            elif not is_last:
                yield from self._walk(folder, f"{path}/", number + 1, fields)
            return
        if part == ANY_DEPTH and not is_last:
            yield from self._walk(folder, done, number + 1, fields)
        for entry in _entries(folder / done):
            path = f"{done}{entry.name}"
            if part == ANY_DEPTH:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(folder, f"{path}/", number, fields)
                continue
            match = self._matchers[number].fullmatch(entry.name)
            taken = match.groupdict() if match else {}
            if match is None or any(fields.get(name, text) != text for name, text in taken.items()):
                continue
            if is_last:
                yield Match(path, {**fields, **taken})
            elif entry.is_dir():
                yield from self._walk(folder, f"{path}/", number + 1, {**fields, **taken})


def filled(text: str, fields: Mapping[str, str]) -> str:
    """A text with the values of its fields; one that has none stays."""
    return FIELD.sub(lambda match: fields.get(match[1], match[0]), text)


def _entries(folder: Path) -> list[os.DirEntry]:
    """What a folder holds; nothing where there is none."""
    if not folder.is_dir():
        return []
    return [entry for entry in os.scandir(folder) if not _is_hidden(entry.name)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _matcher(part: str, forms: Mapping[str, str]) -> re.Pattern:
    """A part of a pattern as a regular expression.

    Raises:
        re.error: the form of a field is none.
    """
    expression = ""
    end = 0
    taken = set()
    for special in SPECIAL.finditer(part):
        expression += re.escape(part[end : special.start()])
        end = special.end()
        name = special[1]
        if name is None:
            expression += {"*": ".*", "?": "."}[special[0]]
        elif name in taken:
            expression += f"(?P={name})"
        else:
            taken.add(name)
            expression += f"(?P<{name}>{forms.get(name, '.+?')})"
    return re.compile(expression + re.escape(part[end:]))
