"""The Pi's pins, imported where they are used; one line with the remedy where there are none."""

from __future__ import annotations

from typing import Any

from device.errors import StethopiError

__all__ = ["import_gpio"]


def import_gpio(what: str = "the panel", without: str = '[panel] kind = "none"') -> Any:
    """The RPi.GPIO module, or what stands in for it on newer boards (rpi-lgpio has the same name).

    what: who needs it; without: the setting that does without.
    """
    try:
        from RPi import GPIO
    except ImportError as error:
        raise StethopiError(
            f"{what} needs RPi.GPIO ({error}); run: pip install 'stethopi[pi]', or set {without}"
        ) from None
    except RuntimeError as error:
        raise StethopiError(
            f"{what} cannot reach the pins ({error}); on a Raspberry Pi run: pip uninstall -y RPi.GPIO && "
            f"pip install rpi-lgpio; on a machine without pins set {without}"
        ) from None
    return GPIO
