"""Python's garbage collection at the same step on all ranks.

A full collection stops a process for a good part of a second where torch, DeepSpeed and a model of
thousands of modules are loaded. Left to itself each rank collects at a different moment, and every
time all others wait for it in their next collective.
"""

import gc


class GarbageCollection:
    """Collects after every ``every``-th step and never in between.

    It starts after the first step. By then the loader's worker processes have been forked, with
    their own collector still on, and everything that lives as long as the run exists, so that later
    collections can leave it out.
    """

    def __init__(self, every: int):
        """Take the number of steps between collections; 0 leaves the collector alone."""
        self.every = every
        self.was_enabled: bool | None = None  # the collector before the first step; None: before it

    def after(self, step: int) -> None:
        """Call it after each step with the step's number.

        The number decides, so all ranks collect at the same step.
        """
        if self.every == 0:
            return
        if self.was_enabled is None:
            self.was_enabled = gc.isenabled()
            gc.collect()
            gc.freeze()
            gc.disable()
        elif step % self.every == 0:
            gc.collect()

    def close(self) -> None:
        """Restore the collector as it was, with everything in its reach."""
        if self.was_enabled is None:
            return
        gc.unfreeze()
        if self.was_enabled:
            gc.enable()
        self.was_enabled = None
