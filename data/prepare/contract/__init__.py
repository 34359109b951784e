"""What every reader keeps to: the tile's grid, the interface of a source, faults and units."""
