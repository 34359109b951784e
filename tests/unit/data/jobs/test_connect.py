"""A connection to workers."""

import asyncio
import gc
import threading

from data.jobs.connect import connected


def fail(future: asyncio.Future, failed: threading.Event) -> None:
    future.set_exception(TimeoutError("nobody waits"))
    failed.set()


def test_a_future_that_dask_drops_is_not_reported(caplog):
    failed = threading.Event()
    with connected(None, workers=1, module="data.jobs.chunk", tasks=1) as connection:
        loop = connection.client.loop.asyncio_loop
        futures = [loop.create_future()]
        loop.call_soon_threadsafe(fail, futures[0], failed)
        assert failed.wait(10)
    futures.clear()
    gc.collect()  # which is when asyncio reports it
    assert "never retrieved" not in caplog.text
