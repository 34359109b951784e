"""The pages and pictures that show it."""
