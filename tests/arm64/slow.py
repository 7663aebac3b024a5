"""A plugin for pytest (`-p tests.arm64.slow`): hypothesis does not mind that an emulated machine is slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("emulated", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("emulated")
