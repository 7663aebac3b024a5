"""What is heard now, and its change while somebody listens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from device.contract.control import Listen, Listening
from device.listening.outputs import Listener, open_listener
from device.settings.sections import ListenSettings
from device.stream.aligned import Cleaner

__all__ = ["LOUDEST_DB", "SOFTEST_DB", "ListeningControl"]

SOFTEST_DB, LOUDEST_DB = -40.0, 40.0
"""The gain that a message can carry."""


class ListeningControl:
    """What the ear gets, for whoever wants it otherwise. Any thread may call.

    strength: the denoiser's, at the beginning. changed: called after each change.
    """

    def __init__(
        self, settings: ListenSettings, strength: float, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._changed = changed
        self._lock = threading.Lock()
        self._now = Listening(
            monitor=settings.monitor,
            strength=strength,
            preset=settings.preset,
            gain_db=settings.gain_db,
            output=settings.output.partition(":")[0],
        )
        self._cleaner: Cleaner | None = None
        self._listener: Listener | None = None

    @property
    def now(self) -> Listening:
        """As it was wanted last."""
        return self._now

    def open(self, cleaner: Cleaner, capture_rate_hz: int) -> Listener:
        """The started listener that the settings ask for, as it is wanted by now. StethopiError when it
        cannot be opened."""
        with self._lock:
            now = self._now
            wanted = replace(self._settings, monitor=now.monitor, preset=now.preset, gain_db=now.gain_db)
            listener = open_listener(wanted, capture_rate_hz)
            listener.start()
            self._attach(cleaner, listener)
        return listener

    def attach(self, cleaner: Cleaner, listener: Listener) -> None:
        """From now on these two are changed."""
        with self._lock:
            self._attach(cleaner, listener)

    def _attach(self, cleaner: Cleaner, listener: Listener) -> None:
        cleaner.strength = self._now.strength
        self._cleaner, self._listener = cleaner, listener

    def change(self, wish: Listen) -> str:
        """Another sound for the ear, at once; what to say of it."""
        given = {name: value for name, value in vars(wish).items() if value is not None}
        with self._lock:
            self._now = now = replace(self._now, **given)
            if self._cleaner is not None:
                self._cleaner.strength = now.strength
            if self._listener is not None:
                self._listener.change(monitor=wish.monitor, preset=wish.preset, gain_db=wish.gain_db)
        self._changed()
        preset = "" if now.preset == "none" else f", {now.preset}"
        says = f"{now.monitor}{preset}, strength {now.strength:g}, gain {now.gain_db:g} dB"
        return says if now.output != "none" else f"{says}; but nobody listens: [listen] output is none"

    def louder(self, steps: int) -> None:
        """So many steps of gain up or down."""
        gain_db = self._now.gain_db + steps * self._settings.gain_step_db
        self.change(Listen(gain_db=min(max(gain_db, SOFTEST_DB), LOUDEST_DB)))
