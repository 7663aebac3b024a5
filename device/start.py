"""Where `stethopi-device` begins: Ctrl-C ends it without a word until there is somebody to answer.

Python's own handler would print a traceback for a Ctrl-C while modules are still being imported. And what
must be set before NumPy is imported is set here, as the unit of systemd does.
"""

import _signal  # the half of `signal` that costs no import
import os

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

# beside one thread of sums, NumPy's others only wait, and burn a fifth of the processor doing so
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

__all__ = ["main"]


def main() -> int:
    """Run `stethopi-device`; its exit code."""
    from device.cli import main

    return main()
