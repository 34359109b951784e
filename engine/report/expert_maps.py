"""Heat maps of the load of the experts."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.report.history import History
from engine.report.panels import name_cells, panel_grid

GROUPS = 120  # columns of a map over time, at most
NARROW = 8  # experts: two panels of at most as many fit beside each other
DARK = 55  # %: text on a darker cell is white
LIGHT_TEXT = "white"
DARK_TEXT = "#333333"
COLOUR_MAP = "YlGnBu"
BAR_LABEL = "% of the modality's tokens"


def expert_shares(history: History, modalities: Sequence[str]) -> Figure:
    """Draw where the tokens went in the last tenth of the steps.

    A panel for each layer: rows are modalities, columns experts, each row sums to 100 %.
    """
    load = history.expert_load()[-history.tenth :].sum(0)  # layers modalities E
    share = _percent(load)
    experts = share.shape[-1]
    columns = 1
    if experts <= NARROW:
        columns = min(2, len(share))
    rows = -(-len(share) // columns)
    figure, axes = panel_grid(rows, columns, height=0.5 + 0.32 * len(modalities))
    panels = axes.ravel()
    for axis in panels[len(share) :]:
        axis.set_axis_off()
    for layer, (axis, values) in enumerate(zip(panels, share)):
        image = axis.imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=100, aspect="auto")
        _write_shares(axis, values, load[layer].sum(-1))
        title = f"MoE layer {layer + 1}"
        name_cells(axis, columns=range(experts), rows=modalities, title=title)
        axis.set_xlabel("expert", labelpad=1)
    figure.colorbar(image, ax=axes, label=BAR_LABEL, fraction=0.03, pad=0.02)
    return figure


def expert_history(history: History, modalities: Sequence[str]) -> Figure:
    """Draw the same shares over time.

    A panel for each modality and layer: rows are experts, columns steps. White: no token.
    """
    load = history.expert_load()  # steps layers modalities E
    groups = np.array_split(load, min(GROUPS, len(load)))
    load = np.stack([group.sum(0) for group in groups])  # groups layers modalities E
    share = _percent(load)
    share[load.sum(-1) == 0] = np.nan
    layers = share.shape[1]
    experts = share.shape[-1]
    extent = (history.steps[0], history.last_step + 1, experts - 0.5, -0.5)
    figure, axes = panel_grid(layers, len(modalities), height=1.35)
    for layer, row in enumerate(axes):
        for index, (axis, name) in enumerate(zip(row, modalities)):
            image = axis.imshow(
                share[:, layer, index].T,
                cmap=COLOUR_MAP,
                vmin=0,
                vmax=100,
                aspect="auto",
                extent=extent,
            )
            axis.grid(False)
            axis.set_title(f"{name}, layer {layer + 1}", fontsize=8.5)
        row[0].set_ylabel("expert")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.colorbar(image, ax=axes, label=BAR_LABEL, fraction=0.03, pad=0.02)
    return figure


def _percent(load: np.ndarray) -> np.ndarray:
    """Load in per cent of its sum over the experts (last axis); 0 without any."""
    return 100 * load / np.maximum(load.sum(-1, keepdims=True), 1)


def _write_shares(axis: Axes, values: np.ndarray, tokens: np.ndarray) -> None:
    """Write each share into its cell; a dash where a modality had no tokens.

    Args:
        axis: the heat map.
        values: (modalities, E) in per cent.
        tokens: (modalities,) number of tokens.
    """
    for (row, column), value in np.ndenumerate(values):
        text = "-"
        if tokens[row]:
            text = f"{value:.0f}"
        shade = DARK_TEXT
        if value > DARK:
            shade = LIGHT_TEXT
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)
