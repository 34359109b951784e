"""Three faults of the interpreter of Triton 3.6, mended for the tests; compiled kernels have none
of them."""

import os

import numpy as np
import torch


def mend() -> None:
    """Where kernels are interpreted: loops up to a run-time number, products of bf16, rounding to
    bf16."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    if hasattr(builder, "mended"):
        return
    builder.mended = True
    patch, dot, cast = interpreter._patch_lang_tensor, builder.create_dot, builder.cast_impl

    def patch_with_index(tensor, scope):
        """It calls int() on an array of one element, which numpy 2.4 refuses."""
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def dot_of_numbers(self, a, b, *rest):
        """It keeps bf16 as uint16 and multiplies those integers."""
        a, b = (cast(self, t, tl.float32) if t.dtype.scalar == tl.bfloat16 else t for t in (a, b))
        return dot(self, a, b, *rest)

    def cast_rounded(self, source, target):
        """It cuts float32 to bf16; the hardware rounds to the nearest."""
        if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
            return interpreter.TensorHandle(
                rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16
            )
        return cast(self, source, target)

    interpreter._patch_lang_tensor = patch_with_index
    builder.create_dot, builder.cast_impl = dot_of_numbers, cast_rounded
