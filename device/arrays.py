"""The arrays that rooms hand each other, by what their elements are; shapes and units stand in docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnyArray", "Flags", "Floats", "Indices", "Int8Array", "Reals", "Samples", "Spectrum"]

Samples = NDArray[np.float32]
"""Sound in ±1 full scale, an ECG in mV, and what networks hear and say of them."""

Reals = NDArray[np.float64]
"""Coefficients, statistics, curves: what is computed once, or must be exact."""

Floats = NDArray[np.floating[Any]]
"""Either of the two, where a computation takes both."""

Spectrum = NDArray[np.complex128]
"""A Fourier transform, or the response of a filter."""

Int8Array = NDArray[np.int8]
"""What a quantised network takes and gives."""

Indices = NDArray[np.int64]
"""Places in samples."""

Flags = NDArray[np.bool_]
"""Yes or no for each sample, window or band."""

AnyArray = NDArray[Any]
"""Any elements: a network's state, the arrays of a file."""
