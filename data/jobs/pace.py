"""How many tasks make a chunk, which is what a worker is sent.

To send a chunk and to take its answer costs the command and the worker some milliseconds of CPU
time, and a scheduler can do some 200 small tasks a second. So a chunk shall take a while.
"""

from math import ceil

LENGTH = 1.0  # seconds that a chunk shall take; who kills a worker loses what it has done of one
MOST_TASKS = 256  # in a chunk
CHUNKS_A_SECOND = 50  # over all workers: a quarter of what a scheduler can do
SHARES = 2  # a chunk is at most this part of what each worker has left to do


class Pace:
    """Chooses the size of the next chunk.

    The first chunks have one task each, later ones as many as fill the time, by the mean of all
    tasks so far. Towards the end they get smaller, so that all workers end at about the same time
    (guided self-scheduling: Polychronopoulos and Kuck, 1987).

    Args:
        workers: to be kept busy.
        tasks: number of tasks of the run.
    """

    def __init__(self, workers: int, tasks: int):
        self._seconds_a_chunk = max(LENGTH, workers / CHUNKS_A_SECOND)
        self._shares = SHARES * workers
        self._left = tasks
        self._most = 1  # tasks in the next chunk
        self._done = 0
        self._seconds = 0.0

    def next(self) -> int:
        """Number of tasks of the chunk that is sent now."""
        count = max(1, min(self._most, ceil(self._left / self._shares)))
        self._left -= count
        return count

    def note(self, tasks: int, seconds: float) -> None:
        """Take in how long a worker was busy with the tasks of a chunk."""
        self._done += tasks
        self._seconds += seconds
        if self._done:
            mean = self._seconds / self._done
            fitting = int(self._seconds_a_chunk / mean)
            self._most = max(1, min(MOST_TASKS, 2 * self._most, fitting))
