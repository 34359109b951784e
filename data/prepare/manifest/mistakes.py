"""The mistakes of a manifest, gathered so that one run names many of them."""

from pathlib import Path

from data.errors import InputError

MOST_LINES = 10  # wrong lines that one error names


class Mistakes:
    """The wrong lines of a manifest, and what is wrong with each.

    Args:
        manifest: its file, for the last line of a long message.
    """

    def __init__(self, manifest: Path) -> None:
        self._manifest = manifest
        self._faults: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, where: str, *faults: str) -> None:
        """Note the faults of a line.

        Args:
            where: the line's place, as 'file:7'.
            faults: what is wrong with it; the place may stand before it.

        Raises:
            InputError: so many lines are wrong that the rest need not be looked at.
        """
        for fault in faults:
            fault = " ".join(fault.removeprefix(f"{where}: ").splitlines())
            self._faults.setdefault(where, []).append(fault)
        if len(self) >= MOST_LINES:
            self.check()

    def check(self) -> None:
        """Raise InputError, with one line for each wrong line, if there are any."""
        if not self._faults:
            return
        lines = [f"{where}: {_numbered(faults)}" for where, faults in self._faults.items()]
        if len(lines) == MOST_LINES:
            lines.append(f"{self._manifest}: expect more wrong lines behind these {MOST_LINES}")
        raise InputError("\n".join(lines))


def _numbered(faults: list[str]) -> str:
    """One fault as it is, several with their numbers."""
    if len(faults) == 1:
        return faults[0]
    numbered = [f"({number}) {fault}" for number, fault in enumerate(faults, 1)]
    return f"{len(faults)} mistakes: {'; '.join(numbered)}"
