"""Errors that a user can put right: a command shows them as one line, without a traceback."""

from data.errors import InputError
from models.errors import ModelError


class ConfigError(ValueError):
    """A wrong configuration: one line saying what was expected, found, where, and what to do."""


class RankError(ValueError):
    """Something failed on at least one rank; raised on every rank with the same line."""


class ReplicaError(RuntimeError):
    """Something that all ranks must have alike differs; raised on every rank with the same line.

    Attributes:
        rank: that is wrong.
        host: of this rank.
        is_certain: False if another rank may be the wrong one as well.
    """

    def __init__(self, line: str, rank: int, host: str, *, is_certain: bool):
        super().__init__(line)
        self.rank = rank
        self.host = host
        self.is_certain = is_certain


# launch/cli.py catches these by name. Anything else is a fault of this project and keeps its
# traceback.
USER_ERRORS = (InputError, ModelError, ConfigError, RankError)
