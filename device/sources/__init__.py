"""Where sound comes from: microphone, file or synthetic heart, chosen by name.

file:PATH                              a WAV or FLAC recording
synthetic                              a synthetic heart
synthetic:rate=70,murmur=systolic      … with settings; a bare word is a murmur: synthetic:systolic
microphone                             the default microphone, through PyAudio
microphone:NAME                        the first whose name contains NAME
arecord, arecord:NAME                  the same through ALSA's arecord; or an ALSA name: arecord:hw:CARD=U1
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from device.settings.specs import LIVE, check_spec, heart_settings
from device.sources.base import Block, Source
from device.spans import Gap

__all__ = ["Block", "Gap", "Source", "open_source"]


def open_source(spec: str, *, pace: str = "real", rate_hz: int = 0, channel: str = "left") -> Source:
    """The source of that name, not yet started.

    `pace`: "real" or "fast" (files and synthetic hearts as fast as they are read). `rate_hz`: of a
    microphone; 0: the first that it offers; `channel`: left or 1, right or 2, of a microphone that has two;
    of a file a number or loudest, left and right being a microphone's. Raises BadInput for a name or a file
    that cannot be used.
    """
    kind, rest = check_spec(spec)
    if kind == "file":
        from device.sources.files import read_sound
        from device.sources.replay import Replay

        wanted: int | str = 1 if channel in ("left", "right") else channel
        if channel.isdigit():
            wanted = int(channel)
        return Replay(read_sound(Path(rest).expanduser(), channel=wanted), pace=pace)
    if kind == "synthetic":
        from device.sources.synthetic import SyntheticSource

        return SyntheticSource(heart_settings(rest), pace=pace)
    live = getattr(import_module(f"device.sources.{kind}"), LIVE[kind])
    source: Source = live(rest, rate_hz=rate_hz, channel=channel)
    return source
