"""Sizes of chunks, tried on workers that are only imagined."""

import heapq

import pytest

from data.jobs.pace import LENGTH, MOST_TASKS, Pace

QUEUED = 2  # chunks a worker that are sent: the one that it works on and one more


def imagined_run(workers: int, tasks: int, seconds: float) -> tuple[list[int], float]:
    """The sizes of all chunks, and the time from the first to the end of the last."""
    pace = Pace(workers, tasks)
    free = [0.0] * workers  # when each worker will be free
    under_way: list[tuple[float, int]] = []  # end and size of a chunk
    sizes = []
    now = 0.0
    while sum(sizes) < tasks or under_way:
        while sum(sizes) < tasks and len(under_way) < QUEUED * workers:
            size = min(pace.next(), tasks - sum(sizes))
            end = max(now, heapq.heappop(free)) + size * seconds
            heapq.heappush(free, end)
            heapq.heappush(under_way, (end, size))
            sizes.append(size)
        now, size = heapq.heappop(under_way)
        pace.note(size, size * seconds)
    return sizes, now


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("seconds", [0.002, 0.045, 0.7, 9.0])
def test_few_chunks_and_no_worker_that_waits_at_the_end(workers, seconds):
    tasks = 240 * workers
    sizes, end = imagined_run(workers, tasks, seconds)
    assert sum(sizes) == tasks
    assert end <= 240 * seconds * 1.02 + seconds
    assert max(sizes) * seconds <= max(LENGTH, seconds)
    # Beyond those that fill the time, a worker has some to begin and some to end with.
    assert len(sizes) <= workers * (240 * max(seconds / LENGTH, 1 / MOST_TASKS) * 1.5 + 20)


def test_more_tasks_than_were_told_go_on():
    pace = Pace(2, 3)
    for _ in range(20):
        assert pace.next() >= 1
        pace.note(1, 0.01)


def test_many_workers_send_no_more_than_a_scheduler_can_do():
    pace = Pace(1000, 10**8)
    for _ in range(30):
        size = pace.next()
        pace.note(size, size * 0.1)
    assert pace.next() * 0.1 == pytest.approx(1000 / 50, rel=0.01)
