"""Steps of a long run that are skipped when they were done before."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device.durable import write_durably
from device.errors import StethopiError
from training.commands.common import say

__all__ = ["Steps"]


class Steps:
    """Steps that leave a stamp when they are done, and are skipped when nothing that decides them has
    changed.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def run(self, name: str, because: Any, output: Path, work: Callable[[], object]) -> bool:
        """Run `work` unless `output` is there with a stamp of the same `because`. True when it ran."""
        key = hashlib.sha256(json.dumps(because, sort_keys=True, default=str).encode()).hexdigest()
        stamp = self.out / f".{name}.done"
        if output.exists() and stamp.is_file() and stamp.read_text().strip() == key:
            say(f"{name}: done before, nothing has changed")
            return False
        stamp.unlink(missing_ok=True)
        started = time.monotonic()
        say(f"{name}: started")
        work()
        if not output.exists():
            raise StethopiError(f"{name}: ended without {output}")
        write_durably(stamp, f"{key}\n".encode())
        say(f"{name}: done in {(time.monotonic() - started) / 60:.1f} min")
        return True
