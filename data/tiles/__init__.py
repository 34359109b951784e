"""What a tile is: sensors, classes, regions, and the zarr archive that stores tiles."""
