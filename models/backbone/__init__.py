"""The hierarchical transformer over a packed batch of images of all sensors."""
