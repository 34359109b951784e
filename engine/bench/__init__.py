"""Measuring functions against each other: timing, memory, tables. The cases are in ``cases``."""
