"""What is wrong about a tile, a source or a pair of tiles, by its measurements."""
