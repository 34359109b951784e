"""The error of wrong input."""


class InputError(ValueError):
    """Something given to us is wrong: one line saying what was expected, found, where, and what to do."""
