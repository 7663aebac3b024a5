"""Ctrl-C in the first instants: no traceback, whatever is being imported just then."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys

class Hook:
    left = int(sys.argv.pop(1))
    def find_spec(self, name, path=None, target=None):
        Hook.left -= 1
        if Hook.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

from {room}.start import main
sys.meta_path.insert(0, Hook())
raise SystemExit(main())
"""


@pytest.mark.process
@pytest.mark.parametrize("room", ["device", "host"])
@pytest.mark.parametrize("number", [1, 4, 12, 40, 90])
def test_an_early_interrupt_is_no_traceback(room: str, number: int) -> None:
    command = "settings" if room == "device" else "doctor"
    run = subprocess.run(
        [sys.executable, "-c", CODE.format(room=room), str(number), command], capture_output=True, text=True
    )
    assert "Traceback" not in run.stderr
    assert run.returncode in (-signal.SIGINT, 130, 0)
    assert run.stderr in ("", "stethopi: interrupted\n") or run.returncode == 0
