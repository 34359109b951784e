"""Pixels, places and dates: from raster files to training batches. Nothing here knows a model."""
