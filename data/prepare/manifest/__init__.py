"""What a user says to prepare: tiles and their files.

The forms are JSON lines, tables, STAC items and lists of places.
"""
