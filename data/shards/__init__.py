"""The training format: tars with a sidecar index, written and read."""
