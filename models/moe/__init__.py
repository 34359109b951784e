"""Mixture of experts: the gated layer and its expert networks."""
