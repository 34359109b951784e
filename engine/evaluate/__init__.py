"""What trained features are worth: frozen-feature probes on a dataset of shards."""
