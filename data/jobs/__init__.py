"""Long work: in processes, continued after any end, with progress."""
