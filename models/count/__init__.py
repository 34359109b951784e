"""Parameters and FLOPs of a model, counted without running it."""
