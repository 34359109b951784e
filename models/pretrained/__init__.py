"""Trained weights in a model of other sizes, bands or sensors."""
