"""What a run will need of its GPUs: memory, exchange and time, found without any GPU."""
