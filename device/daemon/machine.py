"""What the machine says of itself: memory, temperature, its being switched off."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

__all__ = ["resident_bytes", "switch_off", "temperature_c"]

log = logging.getLogger("daemon")


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; None where it cannot be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def temperature_c() -> float | None:
    try:
        return int(Path("/sys/class/thermal/thermal_zone0/temp").read_text("ascii")) / 1000.0
    except (OSError, ValueError):
        return None


def switch_off() -> None:
    """Switch the machine off, now that all is safe."""
    try:
        subprocess.run(["systemctl", "poweroff"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        log.error("the machine cannot be switched off (%s); allow it as docs/panel.md says", error)
