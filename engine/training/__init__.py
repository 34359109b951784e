"""The training run: its objects, one step, the loop, schedules and metrics."""
