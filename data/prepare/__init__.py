"""From real files to co-registered tiles: readers -> fault rules -> one grid -> archive."""
