"""Costs as a table: modules down, view sizes and their modalities across."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config.settings import Settings
from engine.cost.count import GIGA, view_sizes
from models.count.cost import SHARED, Cost, add_up, of_images
from models.features import FUSED

TITLE_WIDTH = 22
CELL_WIDTH = 9


@dataclass(frozen=True)
class ModuleTable:
    """GFLOPs a sample, with totals and shares at the edge."""

    costs: Sequence[Cost]
    settings: Settings
    digits: int  # after the point

    def lines(self) -> list[str]:
        """The table for a terminal."""
        columns = self._columns()
        views = ""
        names = ""
        for view, modality in columns:
            views += f"{'' if view == SHARED else view:>{CELL_WIDTH}}"
            names += f"{modality:>{CELL_WIDTH}}"
        lines = [
            f"{'':{TITLE_WIDTH}}{views}",
            f"{'module':{TITLE_WIDTH}}{names}{'total':>{CELL_WIDTH}}{'share':>8}",
        ]
        for module in dict.fromkeys(cost.module for cost in self.costs):
            rows = [cost for cost in self.costs if cost.module == module]
            lines.append(self._line(module, rows, columns))
        lines.append(self._line("total", self.costs, columns))
        return lines

    def _columns(self) -> list[tuple[str, str]]:
        """View size and modality of each column."""
        columns = []
        for size in view_sizes(self.settings.data.views):
            for name in (*self.settings.model.modalities, FUSED):
                columns.append((size, name))
        if any(cost.view == SHARED for cost in self.costs):
            columns.append((SHARED, SHARED))
        return columns

    def _line(self, title: str, rows: Sequence[Cost], columns: Sequence[tuple[str, str]]) -> str:
        cells = ""
        for column in columns:
            cells += self._cell(of_images(rows, *column))
        share = add_up(rows).flops / add_up(self.costs).flops
        return f"{title:{TITLE_WIDTH}}{cells}{self._cell(rows)}{100 * share:>7.1f}%"

    def _cell(self, rows: Sequence[Cost]) -> str:
        if not rows:
            return f"{'-':>{CELL_WIDTH}}"
        return f"{add_up(rows).flops / GIGA:>{CELL_WIDTH},.{self.digits}f}"
