"""What a tile may be for. A tile that says nothing is for training."""

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
SPLITS = (TRAIN, VALIDATION, TEST)
ALL = "all"  # in settings: whatever a tile is for
