"""The error of a model that cannot be built or cannot take its input."""


class ModelError(ValueError):
    """A wrong specification, weight or tensor.

    The message is one line that says what was expected, what was found, and what to do.
    """
