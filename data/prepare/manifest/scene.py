"""The key ``scene`` of a record: a large raster that is cut into tiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from data.errors import InputError
from data.prepare.contract.source import Place
from data.prepare.manifest.entry import Entry, LeftOut
from data.prepare.manifest.opened import opened
from data.prepare.place.grid import CELL, MOST_CELLS, Grid
from data.prepare.place.spot import Cut
from data.scenes.blocks import SplitRule
from data.scenes.windows import has_cells, windows_of

METRES = 1000  # in a kilometre
BLOCK_KM = 20.0
BETWEEN = "between blocks of two splits"


class SceneKeys(BaseModel):
    """What the object ``scene`` may hold."""

    model_config = ConfigDict(strict=True, extra="forbid")

    cells: int
    stride: int | None = None  # default: cells
    grid: int | None = None  # number of the source whose pixels are cut; default: see ``Scene``
    validation: float | None = None  # share of the blocks; default: no split
    block_km: float | None = None
    seed: int | None = None

    def faults(self, sources: int) -> list[str]:
        """What is wrong with the values, one line each.

        Args:
            sources: how many sources the record has.
        """
        faults = []
        if not 1 <= self.cells <= MOST_CELLS:
            faults.append(f"cells: expected 1 to {MOST_CELLS} cells of 10 m, found {self.cells}")
        if self.stride is not None and self.stride < 1:
            faults.append(f"stride: expected 1 or more cells of 10 m, found {self.stride}")
        if self.grid is not None and not 0 <= self.grid < sources:
            faults.append(
                f"grid: expected the number of one of the {sources} sources, from 0, found "
                f"{self.grid}"
            )
        return faults + self._split_faults()

    def _split_faults(self) -> list[str]:
        """What is wrong with the keys of the split."""
        if self.validation is None:
            given = [key for key in ("block_km", "seed") if getattr(self, key) is not None]
            return [f"{key}: goes with validation, the share of the blocks" for key in given]
        faults = []
        if not 0 <= self.validation <= 1:
            faults.append(
                f"validation: expected a share of the blocks from 0 to 1, found {self.validation:g}"
            )
        block = self.block_km or BLOCK_KM
        side = self.cells * CELL / METRES
        if not 2 * side <= block <= 5000:
            faults.append(
                f"block_km: expected at least {2 * side:g}, twice the side of a tile, and at most "
                f"5000, found {block:g}"
            )
        return faults

    @property
    def split(self) -> SplitRule | None:
        """Which blocks are for validation."""
        if self.validation is None:
            return None
        return SplitRule(self.block_km or BLOCK_KM, self.validation, self.seed or 0)


@dataclass(frozen=True)
class Scene:
    """A rule that cuts the pixels of one source into tiles; the others are read over these.

    The first source whose pixels are cells of 10 m is cut, else the first that says where it lies.
    Labels are cut only when their number is given.
    """

    keys: SceneKeys

    @property
    def split(self) -> SplitRule | None:
        """Which blocks are for validation."""
        return self.keys.split

    def tiles(self, whole: Entry) -> Iterator[Entry | LeftOut]:
        """See ``Rule``. A tile that lies on blocks of two splits is left out."""
        stride = self.keys.stride or self.keys.cells
        windows = windows_of(self._place(whole), cells=self.keys.cells, stride=stride)
        splits = splits_of([window.grid for window in windows], self.split, whole.split)
        for window, split in zip(windows, splits):
            if split is None:
                yield LeftOut(BETWEEN)
                continue
            yield replace(
                whole, key=f"{whole.key}-{window.name}", spot=Cut(window.grid), split=split
            )

    def _place(self, whole: Entry) -> Place:
        """Where the pixels lie that are cut.

        Raises:
            InputError: no source says where it lies, or one cannot be used: no tile could be made.
        """
        sources = opened(whole.readers)
        for source in sources:
            if source.fault:
                raise InputError(source.fault)
        if self.keys.grid is not None:
            candidates = [sources[self.keys.grid].place]
        else:
            candidates = [source.place for source in sources]
            candidates = [place for place in candidates if place and place.modality is not None]
        places = [place for place in candidates if place is not None]
        if not places:
            raise InputError("no source says where the pixels lie that shall be cut into tiles")
        with_cells = [place for place in places if has_cells(place, self.keys.cells)]
        return (with_cells or places)[0]


def splits_of(grids: Sequence[Grid], rule: SplitRule | None, given: str) -> list[str | None]:
    """The splits of the tiles of a scene; None for one that lies on blocks of two.

    Args:
        grids: of the tiles, of one size and CRS.
        rule: which blocks are for validation.
        given: the split of all tiles where there is no rule.
    """
    if rule is None:
        return [given] * len(grids)
    return rule.splits_of(grids)
