"""Runs training: configuration, steps, teacher, checkpoints. The only package that knows processes
and DeepSpeed."""
