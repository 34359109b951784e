"""Weights of a finished run: read from a checkpoint, exported to one file, loaded elsewhere."""
