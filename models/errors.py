"""The error of a model that cannot be built or cannot take what it was given."""


class ModelError(ValueError):
    """A wrong specification, weight or tensor: one line saying what was expected, found, and what to do."""
