"""What every reader keeps to: the grid of a tile, the interface of a source, rules for faults and units."""
