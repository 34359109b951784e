"""A finished run on one page, and runs beside each other."""
