"""Where the worker processes of a run are: on this machine, at a running scheduler, in SLURM."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Running:
    """Workers of a Dask cluster that is running.

    Attributes:
        address: of its scheduler, such as ``tcp://10.0.0.5:8786``.
    """

    address: str

    def __str__(self) -> str:
        return f"--scheduler {self.address}"


@dataclass(frozen=True)
class Slurm:
    """Workers in jobs of SLURM; what is None is left to dask-jobqueue's own configuration.

    Attributes:
        partition: of the jobs.
        account: that pays.
        cores: of a job, and so many workers are in it.
        memory: of a job, such as ``64GB``.
        walltime: of a job, as ``HH:MM:SS``.
        interface: network interface of the scheduler and the workers, such as ``ib0``.
        logs: folder for the output of the jobs; None throws it away.
    """

    partition: str | None = None
    account: str | None = None
    cores: int = 1
    memory: str = "4GB"
    walltime: str | None = None
    interface: str | None = None
    logs: str | None = None

    def __str__(self) -> str:
        return "--slurm"


Place = Running | Slurm | None  # None: this machine
