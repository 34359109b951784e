"""What every reader keeps to: opened files, what a source returns, numbers, units and faults."""
