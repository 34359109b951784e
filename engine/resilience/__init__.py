"""What keeps a long run alive: the guard against collapse and spikes, and stopping on a signal."""
