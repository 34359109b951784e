"""What is measured of a tile and merged over many: moments, histograms, prints, registration."""
