"""The arrays that rooms hand each other, by what their elements are; shapes and units stand in docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnyArray", "Flags", "Indices", "Int8Array", "Real", "Samples", "Spectrum"]

Samples = NDArray[np.float32]
"""Sound in ±1 full scale or an ECG in mV, and what networks hear and say of it."""

Real = NDArray[np.float64]
"""Coefficients, statistics, curves: what is computed once, or must be exact."""

Spectrum = NDArray[np.complexfloating[Any, Any]]
"""A Fourier transform, or the response of a filter."""

Int8Array = NDArray[np.int8]
"""What a quantised network takes and gives."""

Indices = NDArray[np.int64]
"""Places in samples."""

Flags = NDArray[np.bool_]
"""Yes or no for each sample, window or band."""

AnyArray = NDArray[Any]
"""Any elements: a network's state, raw bytes of a file, input that will be converted."""
