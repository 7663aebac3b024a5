"""One MQTT link: version 5 where the broker speaks it, else 3.1.1; reasons in plain words."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paho.mqtt.client import Client


__all__ = ["Broker", "broker_answers"]


_UNSUPPORTED_PROTOCOL = (132, 1)
"""CONNACK codes of a broker that does not speak MQTT 5, as a version 5 and as an older one says it."""


@dataclass(frozen=True)
class Broker:
    """Where the broker is and how to be let in."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: Path | None = None
    """Certificates to trust; None: those of the system."""
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def show_papers(client: Client, broker: Broker) -> None:
    """Give the client its name, password and certificates."""
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if broker.tls:
        client.tls_set(
            ca_certs=str(broker.ca_file) if broker.ca_file else None,
            certfile=str(broker.cert_file) if broker.cert_file else None,
            keyfile=str(broker.key_file) if broker.key_file else None,
        )


def spoken(version: int | None) -> str:
    return "5" if version == 5 else "3.1.1"


def reason_of(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.lower().rstrip(".")


def broker_answers(broker: Broker, timeout_s: float = 5.0, client_id: str = "") -> tuple[int | None, str]:
    """Connect once and leave: (MQTT version that the broker speaks, "") or (None, why it does not let us in).

    Without a last will: amqtt 0.12 says that it does not speak MQTT 5 only when there is none, and says
    nothing at all when there is one.
    """
    from paho.mqtt import client as paho

    why = "no answer to the connection"
    for version, protocol in ((5, paho.MQTTProtocolVersion.MQTTv5), (3, paho.MQTTProtocolVersion.MQTTv311)):
        ended = threading.Event()
        reasons: list[Any] = []

        def on_connect(
            _c: Any, _u: Any, _f: Any, reason: Any, _p: Any, kept: list[Any] = reasons, end: Any = ended
        ) -> None:
            kept.append(reason)
            end.set()

        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        client.on_connect = on_connect
        client.on_disconnect = lambda *_, end=ended: end.set()
        client.connect_timeout = timeout_s
        try:
            show_papers(client, broker)
            client.connect(broker.host, broker.port, keepalive=10)
        except (OSError, ValueError) as error:
            return None, reason_of(error)
        client.loop_start()
        ended.wait(timeout_s)
        client.disconnect()
        client.loop_stop()
        if reasons and not reasons[0].is_failure:
            return version, ""
        if reasons:
            why = str(reasons[0]).lower()
            if reasons[0].value not in _UNSUPPORTED_PROTOCOL:
                return None, why
    return None, why
