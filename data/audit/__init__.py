"""What a dataset of shards holds, and what is wrong with it: read, merge, judge, draw."""
