"""What hypothesis draws for the device's tests."""

from __future__ import annotations

import functools

from hypothesis import strategies as st

__all__ = ["floats"]

floats = functools.partial(st.floats, allow_subnormal=False)
"""Numbers that every machine has: tflite-runtime's wheel for arm64 sets the processor to take those below the
smallest normal one for zero, in the whole process, and hypothesis will not draw them there.
"""
