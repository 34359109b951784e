"""Command lines: one small file a command."""
