"""Whether a batch gives Sinkhorn-Knopp enough rows for the prototypes of a head."""

from engine.config.settings import Settings

# Prototypes a row, from which on targets carry too little: twice as many as in the paper's run,
# where an image level has 2048 rows for 65,536. N rows share K prototypes evenly, so the entropy of
# a target is at least log(K / N).
HOPELESS = 64
GOOD = 32


def few_rows(settings: Settings, batch_size: int) -> list[str]:
    """Lines for the log on what a step has too few rows for; none if there are enough.

    The image level has the fewest rows: one a sample, global view and frame. The fused features and
    the optical image have one frame. Data that lack sensors give fewer.

    Args:
        settings: The run's settings.
        batch_size: Samples of a step over all ranks.
    """
    if settings.loss.centring != "sinkhorn":
        return []
    prototypes = settings.model.head.prototypes
    rows = batch_size * settings.data.views.global_views
    full = settings.loss.full_weight_rows
    lines = []
    if rows < full:
        lines.append(
            f"few rows: at most {rows} for an image level, whose term weighs {rows / full:.2g} "
            f"of skysense.loss.mgcl (loss.full_weight_rows {full})"
        )
    if prototypes >= HOPELESS * rows:
        lines.append(_too_many_prototypes(settings, batch_size, rows))
    return lines


def _too_many_prototypes(settings: Settings, batch_size: int, rows: int) -> str:
    """The warning for prototypes that a step can never fill."""
    prototypes = settings.model.head.prototypes
    samples = -(-prototypes // (GOOD * settings.data.views.global_views))
    return (
        f"warning: {prototypes} prototypes are too many for the {rows} rows of an image level "
        f"({batch_size} samples x {settings.data.views.global_views} global views): their targets "
        f"stay nearly uniform; set skysense.model.head.prototypes to at most {GOOD * rows}, or "
        f"train_batch_size to at least {samples}"
    )
