"""From real raster formats to co-registered tiles: readers -> fault rules -> one grid -> archive."""
