"""Measuring functions against each other: timing, memory and tables here, what is compared in
``cases``."""
