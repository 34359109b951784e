"""What only pre-training needs: projection heads, queries, text tower, losses."""
