"""What ``skysense bench kernels`` compares.

A module has ``SIZES``, lists of sizes by "paper", "small" and "tiny", and ``case(size, device)``,
which makes the inputs of one comparison.
"""
