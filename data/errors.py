"""The error of wrong input."""


class InputError(ValueError):
    """Something given to the program is wrong.

    The message is one line: what was expected, what was found, where, and what to do.
    """
