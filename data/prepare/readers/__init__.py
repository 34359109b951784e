"""One file a format: each gives windows of its files on the tile's grid, with dates and masks."""
