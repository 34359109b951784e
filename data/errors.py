"""The one error a user of the data tools should ever see."""


class InputError(ValueError):
    """Something given to us is wrong: one line saying what was expected, what was found, where, and
    what to do."""
