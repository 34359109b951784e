"""Byte ranges of files, wherever they lie."""
