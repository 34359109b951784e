"""What a user says to prepare: tiles and their files as JSON lines, tables, STAC items or a list of
places."""
