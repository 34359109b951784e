"""Errors that a user can put right: a command shows them as one line, without a traceback."""

from data.errors import InputError
from models.errors import ModelError


class ConfigError(ValueError):
    """A wrong configuration: one line saying what was expected, found, where, and what to do."""


class RankError(ValueError):
    """Something failed on at least one rank; raised on every rank with the same line."""


# launch/cli.py catches these by name. Anything else is a fault of this project and keeps its
# traceback.
USER_ERRORS = (InputError, ModelError, ConfigError, RankError)
