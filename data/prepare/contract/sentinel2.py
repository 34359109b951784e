"""What Sentinel-2 Level-2A products have in common, whatever file holds them."""

FINE_BANDS = ("B02", "B03", "B04", "B08")  # 10 m pixels
COARSE_BANDS = ("B05", "B06", "B07", "B8A", "B11", "B12")  # 20 m pixels
# Codes of the scene classification (SCL) that hide a pixel: no data, defective, shadow, cloud of
# medium and of high probability, cirrus, snow.
CLOUDY = (0, 1, 3, 8, 9, 10, 11)
NO_DATA = 0  # code of the scene classification
