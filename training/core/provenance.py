"""Commit and folders that figures name as their origin."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["RELEASED", "RESULTS", "ROOT", "commit_id"]

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "docs" / "results"
RELEASED = ROOT / "models" / "released"


def commit_id() -> str | None:
    """The commit of the checkout this code stands in; None outside of one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None
