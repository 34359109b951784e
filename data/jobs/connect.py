"""The way to the workers of a place: a client of their scheduler, started first where need be."""

import asyncio
import logging
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import InputError
from data.jobs.local import LocalWorkers, signals_blocked
from data.jobs.places import Place, Running, Slurm
from data.jobs.surroundings import difference, worker_environment

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

log = logging.getLogger(__name__)

FEW = 4  # tasks a worker: to start the others may take longer than to do them all
POLL = 0.005  # seconds between two looks at who has come
DESERTED_SECONDS = 30.0  # without a worker; a nanny starts a new one in less
CONNECT_SECONDS = 20.0  # until a scheduler must have answered
# Of a scheduler of our own. One death of a worker is enough for us to hear of it; a worker gets a
# task when it is free; the rest is there for dashboards and for data that depend on each other.
SETTINGS = {
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.diagnostics.nvml": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.http.routes": [],
    "distributed.scheduler.worker-saturation": 1.0,
}
LOUD = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")


@dataclass
class Connection:
    """A client with workers behind it.

    Attributes:
        client: Dask's.
        most: workers that are to be kept busy.
        place: where they are.
        local: the workers, if they are the command's own.
    """

    client: "Client"
    most: int
    place: Place = None
    local: LocalWorkers | None = None
    scheduler: Any = None  # that of ``local``
    _deserted: float | None = None  # time since when there is no worker

    @property
    def workers(self) -> int:
        """How many are to be kept busy now."""
        if self.scheduler is None:
            return self.most
        return max(1, min(self.most, len(self.scheduler.workers)))

    def grow(self) -> None:
        """Start the workers that have not been needed so far."""
        if self.local is not None:
            self.local.grow(self.most)

    def check(self) -> None:
        """Look after the workers when nothing has come from them for a while.

        Raises:
            InputError: there are none any more.
        """
        if self.local is not None:
            self.local.check()
        elif isinstance(self.place, Running):
            self._check_running()

    def _check_running(self) -> None:
        """Raise InputError if a running cluster is lost, or has had no workers for some time."""
        try:
            threads = self.client.nthreads()
        except OSError as error:
            raise InputError(self.lost_scheduler()) from error
        if threads:
            self._deserted = None
            return
        if self._deserted is None:
            self._deserted = time.monotonic()
        if time.monotonic() - self._deserted > DESERTED_SECONDS:
            raise InputError(
                f"{self.place}: has no workers any more; what is done is kept: start some, and the "
                f"same command again"
            )

    def is_alive(self) -> None:
        """Note that something has come."""
        if self.local is not None:
            self.local.are_alive()

    def how_it_ended(self, worker: str) -> str:
        """How a worker's process ended; empty if nobody knows."""
        if self.local is None:
            return ""
        return self.local.how_it_ended(worker)

    def lost_scheduler(self) -> str:
        """An error in words: what was under way was cancelled."""
        return (
            f"{self.place}: the connection to the scheduler is lost; what is done is kept: start "
            f"it, and the same command again"
        )


@contextmanager
def connected(
    place: Place, *, workers: int | None, module: str, tasks: int
) -> Iterator[Connection]:
    """A connection to the workers of a place, which are started first where need be.

    Args:
        place: where they are.
        workers: how many; None for one a core, for those of a running cluster, for one job.
        module: holds the function of the tasks.
        tasks: about how many there are; for a few, one worker is started first.

    Raises:
        InputError: nobody answers, or what is there does not fit this command.
    """
    if isinstance(place, Running):
        with _running(place) as connection:
            yield connection
    elif isinstance(place, Slurm):
        with _slurm(place, workers or place.cores) as connection:
            yield connection
    else:
        most = min(workers or cores(), tasks)
        first = most if tasks > FEW * most else 1
        with _local(first, most, module) as connection:
            yield connection


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def _local(first: int, most: int, module: str) -> Iterator[Connection]:
    """A scheduler in this process and worker processes beside it.

    Args:
        first: workers to begin with.
        most: workers if there turns out to be much to do.
        module: see ``connected``.
    """
    workers = LocalWorkers(first, module)
    try:
        from distributed import Client  # while the workers start

        with _own_cluster() as cluster, Client(cluster, set_as_default=False) as client:
            _quieten(client)
            workers.connect(cluster.scheduler_address)
            try:
                scheduler: Any = cluster.scheduler
                while len(scheduler.workers) < first:
                    time.sleep(POLL)
                    workers.check()
                yield Connection(client, most, local=workers, scheduler=scheduler)
            finally:
                workers.close()  # before the scheduler, which would wait for them
    finally:
        workers.close()


@contextmanager
def _own_cluster() -> Iterator["LocalCluster"]:
    """A scheduler in this process, without a port that other machines could reach."""
    import dask
    from distributed import LocalCluster

    with dask.config.set(SETTINGS), _quiet():
        with tempfile.TemporaryDirectory(prefix="skysense-") as scratch, signals_blocked():
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                scheduler_kwargs={"local_directory": scratch},
            )
        with cluster:
            yield cluster


@contextmanager
def _running(place: Running) -> Iterator[Connection]:
    """A client of a running cluster."""
    from distributed import Client

    try:
        with signals_blocked():
            client = Client(place.address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{place}: no Dask scheduler answers there ({error}); start one "
            f"with `dask scheduler`, and workers with `dask worker {place.address} --nthreads 1`"
        ) from error
    with _quiet(), client:
        _quieten(client)
        threads = list(client.nthreads().values())
        if not threads:
            raise InputError(
                f"{place}: it has no workers; start some with "
                f"`dask worker {place.address} --nthreads 1 --nworkers N`"
            )
        if max(threads) > 1:
            raise InputError(
                f"{place}: expected workers with one thread each, found one "
                f"with {max(threads)}; start them with `--nthreads 1 --nworkers N`"
            )
        _check_versions(client, place)
        yield Connection(client, len(threads), place)


def _check_versions(client: "Client", place: Running) -> None:
    """Refuse a scheduler or workers whose Python or Dask is another one."""
    versions: Any = client.get_versions()
    own = versions["client"]["packages"]
    others = {"the scheduler": versions["scheduler"]}
    others |= {f"the worker {name}": worker for name, worker in versions["workers"].items()}
    for name, other in others.items():
        found = difference(own, other["packages"])
        if found:
            raise InputError(
                f"{place}: {name} has {found}; start scheduler, workers and command "
                f"from one environment"
            )


@contextmanager
def _slurm(place: Slurm, count: int) -> Iterator[Connection]:
    """A scheduler in this process and workers in jobs of SLURM."""
    try:
        import dask
        from dask_jobqueue import SLURMCluster
        from distributed import Client
    except ImportError as error:
        raise InputError(
            f"--slurm: {error}; install dask-jobqueue (pip install 'skysense-v2[slurm]')"
        ) from error
    exports = []
    for name, value in worker_environment().items():
        exports.append(f"export {name}={shlex.quote(value)}")
    directives = []
    if place.logs is None:
        directives = ["--output=/dev/null", "--error=/dev/null"]
    with dask.config.set(SETTINGS), signals_blocked():
        cluster = SLURMCluster(
            queue=place.partition,
            account=place.account,
            cores=place.cores,
            processes=place.cores,
            memory=place.memory,
            walltime=place.walltime,
            interface=place.interface,
            log_directory=place.logs,
            job_extra_directives=directives,
            job_script_prologue=exports,
            python=sys.executable,
            scheduler_options={"dashboard_address": ":0"},
            silence_logs=logging.CRITICAL,
        )
    with _quiet(), cluster, Client(cluster, set_as_default=False) as client:
        _quieten(client)
        log.info("%d workers in jobs of SLURM are asked for; waiting for the first", count)
        # Between these two equal limits Dask asks for a new job in place of one that has ended.
        cluster.adapt(minimum=count, maximum=count)
        client.wait_for_workers(1)
        yield Connection(client, count, place)


def _quieten(client: "Client") -> None:
    """Let the event loop of a client report nothing.

    On a busy machine Dask drops futures that run into a timeout. asyncio reports each when it is
    collected, which may be long after the run.
    """
    loop: Any = client.loop
    loop.asyncio_loop.set_exception_handler(_ignore)


def _ignore(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    """Handle an exception of an event loop by saying nothing."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Dask's own log: what matters in it comes back as an error of a task."""
    levels = {name: logging.getLogger(name).level for name in LOUD}
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
