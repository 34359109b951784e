"""Measures what a training step takes."""
