"""OpenStreetMap: from files and tags to classes on a raster."""
