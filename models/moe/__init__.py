"""Mixture of experts (MoE): the gated layer and its expert networks."""
