"""One process that no launcher started is the only rank."""

import os

ONE_RANK = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",  # any free port
}


def default_to_one_rank() -> None:
    """Make this process the only rank, unless a launcher has said what it is part of."""
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        os.environ |= ONE_RANK
