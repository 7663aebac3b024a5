"""Where `stethopi` begins: see device.start."""

import device.start  # noqa: F401  Ctrl-C is answered later

__all__ = ["main"]


def main() -> int:
    """Run `stethopi`; its exit code."""
    from host.cli import main

    return main()
