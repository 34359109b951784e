"""Small labelled sets that show whether training learns (docs/learning.md)."""
