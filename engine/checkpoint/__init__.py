"""Saving and restoring a run: a checkpoint exists whole or not at all."""
