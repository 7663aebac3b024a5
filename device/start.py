"""Where `stethopi-device` begins: Ctrl-C ends it without a word until there is somebody to answer.

Python's own handler would print a traceback for a Ctrl-C while modules are still being imported.
"""

import _signal  # the half of `signal` that costs no import

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

__all__ = ["main"]


def main() -> int:
    """Run `stethopi-device`; its exit code."""
    from device.cli import main

    return main()
