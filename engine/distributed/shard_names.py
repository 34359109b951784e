"""How the tensors of a sharded teacher are named, in memory and in a checkpoint."""

SHARD = "shard."  # and five digits of the parameter group behind it
BUFFER = "buffer."  # and the module's own name of the buffer behind it
