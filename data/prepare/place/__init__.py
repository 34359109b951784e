"""Where tiles and pixels lie: georeference, grid of 10 m cells, windows, resampling."""
