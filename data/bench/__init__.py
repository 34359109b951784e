"""Measurements of codecs and of ways to read samples."""
