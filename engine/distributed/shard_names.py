"""How the tensors of a sharded teacher are named, in memory and in a checkpoint."""

SHARD = "shard."  # SHARD + five digits of the parameter group
BUFFER = "buffer."  # BUFFER + the module's own name of the buffer
