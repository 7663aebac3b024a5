"""Keeps back what libraries write from C to stderr although nothing is wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

__all__ = ["quiet_about"]

_one_at_a_time = threading.Lock()


def _scratch() -> IO[bytes]:
    # in memory where that is possible: a card may be full, or read-only
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def quiet_about(noise: tuple[str, ...]) -> Iterator[None]:
    """Lines that begin with one of `noise` vanish; whatever else came meanwhile comes out after."""
    with _one_at_a_time, _scratch() as held:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            held.seek(0)
            lines = [
                line
                for line in held
                if line.strip() and not line.decode("utf-8", "replace").startswith(noise)
            ]
            with contextlib.suppress(OSError):
                os.write(kept, b"".join(lines))
            os.close(kept)
