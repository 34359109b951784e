"""From shards to batches: the order of samples, decoding, views, augmentation, fixed shapes."""
