"""Everything that involves other ranks: DeepSpeed, collectives, the sharded teacher."""
