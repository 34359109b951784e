"""Kernels in Triton, each beside a PyTorch reference of the same signature.

Nothing here imports triton before a kernel is wanted: the reference asks ``dispatch.kernel_path``,
and only then imports the kernel's module.
"""
