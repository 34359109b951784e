"""What a training step takes, by measuring."""
