"""PortAudio through PyAudio: opened without its noise on stderr, devices found by name, errors with the
remedy.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from device.errors import StethopiError
from device.inference.stderr_filter import quiet_about

__all__ = ["Holder", "alone", "close_portaudio", "devices", "find_device", "hold", "open_portaudio", "quiet"]

_NOISE = (
    "ALSA lib",
    "Cannot connect to server",
    "jack server",
    "JackShm",
    "Expression '",
    "connect(2) call",
    "attempt to",
)


def quiet() -> contextlib.AbstractContextManager[None]:
    """Keep back what ALSA and JACK print on stderr while PortAudio looks for devices; other lines come out
    after. They are some 80 lines for a machine that is as it should be.
    """
    return quiet_about(_NOISE)


def open_portaudio(what: str) -> Any:
    """A PyAudio object; `terminate` ends it. Raises StethopiError saying how to get PyAudio for `what`."""
    try:
        with quiet():
            import pyaudio

            return pyaudio.PyAudio()
    except (ImportError, OSError) as error:
        raise StethopiError(
            f"the {what} needs PyAudio ({error}); run: apt-get install -y portaudio19-dev gcc "
            f"&& pip install 'stethopi[pi]'"
        ) from None


class Holder(Protocol):
    """Who holds PortAudio for long, and can do without it for a moment."""

    def step_aside(self) -> None:
        """Let go of PortAudio. Never raises."""

    def come_back(self) -> None:
        """Take it again, if that can be. Never raises."""


_holders: list[Holder] = []
_one_at_a_time = threading.RLock()


def hold(holder: Holder, held: bool = True) -> None:
    """Say that it holds PortAudio, or no more."""
    with _one_at_a_time:
        if holder in _holders:
            _holders.remove(holder)
        if held:
            _holders.append(holder)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """PortAudio makes its list of cards when the first one opens it and keeps it while anybody holds it; a
    card that was plugged in since is not there. Within this block all holders have stepped aside.
    """
    with _one_at_a_time:
        asked = list(_holders)
        for holder in asked:
            holder.step_aside()
        try:
            yield
        finally:
            for holder in asked:
                holder.come_back()


def close_portaudio(stream: Any, audio: Any, *, drain: bool = False, timeout_s: float = 1.0) -> bool:
    """Close a stream and end PortAudio; either may be None. False when the driver did not let go in time.

    `drain`: what is in the card's buffers is played to its end.

    Drivers have been seen to wait for ever for a card, or a sound server, that is gone. It may wait alone.
    """

    def close() -> None:
        ends = [stream.stop_stream] if stream and drain else []
        ends += [stream.close] if stream else []
        for end in [*ends, audio.terminate] if audio else ends:
            with contextlib.suppress(OSError):
                end()

    thread = threading.Thread(target=close, name="close sound", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()


def devices(audio: Any, direction: str) -> list[dict[str, Any]]:
    """What PortAudio tells of the devices that have channels in that direction, "input" or "output"."""
    found = [audio.get_device_info_by_index(number) for number in range(audio.get_device_count())]
    return [device for device in found if int(device[f"max{direction.capitalize()}Channels"]) > 0]


def find_device(audio: Any, name: str, direction: str) -> dict[str, Any]:
    """The first device whose name contains `name`, or the default one for "". By name, for numbers change.

    Raises StethopiError naming those that are there.
    """
    what, plural, tool = {
        "input": ("microphone", "microphones", "arecord -l"),
        "output": ("output", "outputs", "aplay -l"),
    }[direction]
    known = devices(audio, direction)
    if not known:
        raise StethopiError(f"no {what} found; plug one in and look with: {tool}")
    if not name:
        with contextlib.suppress(OSError):
            return dict(getattr(audio, f"get_default_{direction}_device_info")())
        return known[0]
    for device in known:
        if name.casefold() in str(device["name"]).casefold():
            return device
    there = ", ".join(f'"{device["name"]}"' for device in known)
    raise StethopiError(f'no {what} whose name contains "{name}"; the {plural} here: {there}')
