"""Python's garbage collection at the same step on all ranks.

A full collection stops a process for a good part of a second where torch, DeepSpeed and a model of
thousands of modules are loaded. Left to itself each rank collects at a moment of its own, and every
time all others wait for it in their next collective.
"""

import gc


class GarbageCollection:
    """Collects after every ``every``-th step and never in between; 0 leaves the collector alone.

    It starts after the first step: the loader's worker processes have been forked by then, with
    their own collector still on, and what lives as long as the run is there, so that it can be left
    out of all later collections.
    """

    def __init__(self, every: int):
        self.every = every
        self.automatic: bool | None = (
            None  # whether the collector was on when this began; None: not begun
        )

    def after(self, step: int) -> None:
        """To be called after each step with its number, which decides: all ranks make the same
        steps."""
        if not self.every:
            return
        if self.automatic is None:
            self.automatic = gc.isenabled()
            gc.collect()
            gc.freeze()
            gc.disable()
        elif step % self.every == 0:
            gc.collect()

    def close(self) -> None:
        """Give the collector back as it was, with everything in its reach."""
        if self.automatic is None:
            return
        gc.unfreeze()
        if self.automatic:
            gc.enable()
        self.automatic = None
