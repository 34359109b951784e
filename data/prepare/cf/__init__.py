"""NetCDF and zarr by the CF conventions: axes, times, numbers and CRS of their variables."""
