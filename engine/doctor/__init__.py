"""What runs on this machine, and why: the rooms of skysense doctor."""
