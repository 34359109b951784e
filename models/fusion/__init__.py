"""Joining dates and sensors of a place, and the geo-context prototypes."""
