"""Errors that a user can put right, by class: what a command shows as one line instead of a traceback."""

from data.errors import InputError
from models.errors import ModelError


class ConfigError(ValueError):
    """A wrong configuration: one line saying what was expected, found, where, and what to do."""


class RankError(ValueError):
    """Something failed on at least one rank; raised on every rank with the same line."""


# Caught by name in one place, launch/cli.py. Anything else keeps its traceback: it is a fault of this project.
USER_ERRORS = (InputError, ModelError, ConfigError, RankError)
