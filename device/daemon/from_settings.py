"""What the settings mean for the daemon: the plan of an exam, the broker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from device.delivery.link import Broker
from device.exam.plan import Plan

if TYPE_CHECKING:
    from device.settings.settings import Settings


__all__ = ["plan_of", "broker_of", "one_exam"]


def plan_of(settings: Settings) -> Plan:
    """What an exam is to hear by the settings."""
    exam = settings.exam
    return Plan(exam.sites, exam.min_s, exam.max_s, exam.good_windows)


def broker_of(settings: Settings) -> Broker | None:
    """The broker that the settings name; None when they name none."""
    mqtt = settings.mqtt
    if not mqtt.host:
        return None
    return Broker(
        host=mqtt.host,
        port=mqtt.port,
        username=mqtt.username or None,
        password=mqtt.password(),
        tls=mqtt.tls,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        keepalive_s=mqtt.keepalive_s,
    )


def one_exam(settings: Settings, site: str, seconds: float | None) -> Settings:
    """The settings for `stethopi-device exam`: one site, one exam, begun at once."""
    changed = settings.change("exam", sites=[site], autostart=True, exams=1)
    if seconds is not None:
        # just so long: more good windows than there can be
        exam = replace(changed.exam, min_s=seconds, max_s=seconds, good_windows=int(seconds) + 1)
        changed = replace(changed, exam=exam)
    return changed
