"""Where the ECG comes from: a converter behind an AD8232, a recording, a heart that is not there.

none                                       no lead
mcp3008, mcp3008:BUS.DEVICE                MCP3008 by SPI (default 0.0)
ads1115, ads1115:BUS.ADDRESS               ADS1115 by I2C (default 1.0x48)
file:PATH                                  a WFDB record, a WAV or FLAC (±1 is ±5 mV), a CSV
synthetic, synthetic:rate=70,off_after_s=5 made from a seed; beats with the synthetic heart of that rate and
seed
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from device.ecg.base import EcgSource
from device.ecg.replay import EcgReplay, SyntheticEcg
from device.errors import BadInput
from device.settings.specs import check_ecg_spec, lead_settings

if TYPE_CHECKING:
    from device.settings.sections import EcgSettings

__all__ = ["open_ecg"]


# ---- by name


def open_ecg(settings: EcgSettings, *, pace: str = "real") -> EcgSource | None:
    """The lead that `[ecg]` asks for, not yet started; None for none. BadInput for a name or a file that
    cannot be used.
    """
    kind, rest = check_ecg_spec(settings.spec)
    if kind == "none":
        return None
    if kind == "file":
        from device.ecg.files import read_ecg

        return EcgReplay(read_ecg(Path(rest).expanduser()), pace=pace)
    if kind == "synthetic":
        return SyntheticEcg(lead_settings(rest), pace=pace)
    if pace == "fast":
        raise BadInput(
            f"[ecg] spec = {settings.spec}: a converter gives samples in real time only; "
            f'set [source] pace = "real"'
        )
    from device.ecg.adc import AdcSource, converter

    return AdcSource(converter(kind, rest, settings), settings)
