"""Whether a batch gives Sinkhorn-Knopp enough rows for the prototypes of a head."""

from engine.config.settings import Settings

# Prototypes a row, from which on targets carry too little: twice as many as in the paper's run,
# where an image level has 2048 rows for 65,536. N rows share K prototypes evenly, so the entropy of
# a target is at least log(K / N).
HOPELESS = 64
GOOD = 32


def few_rows(settings: Settings, batch_size: int) -> str | None:
    """One warning if the rows of a step are hopelessly few for the prototypes, or None.

    The image level has the fewest rows: one a sample, global view and frame. The fused features and
    the optical image have one frame. Data that lack sensors give fewer.

    Args:
        settings: The run's settings.
        batch_size: Samples of a step over all ranks.
    """
    prototypes = settings.model.head.prototypes
    rows = batch_size * settings.data.views.global_views
    if settings.loss.centring != "sinkhorn" or prototypes < HOPELESS * rows:
        return None
    samples = -(-prototypes // (GOOD * settings.data.views.global_views))
    return (
        f"warning: {prototypes} prototypes are too many for the {rows} rows of an image level "
        f"({batch_size} samples x {settings.data.views.global_views} global views): their targets "
        f"stay nearly uniform; set skysense.model.head.prototypes to at most {GOOD * rows}, or "
        f"train_batch_size to at least {samples}"
    )
