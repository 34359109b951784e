"""What a model and a training step cost, by counting."""
