"""Long work: in processes, with progress, and continued after an interruption."""
