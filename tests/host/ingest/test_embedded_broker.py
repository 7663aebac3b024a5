"""The embedded broker: ports, retained messages, last will, and a clean end."""

from __future__ import annotations

import queue
import socket
import threading

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from device.errors import StethopiError
from host.ingest.embedded_broker import EmbeddedBroker, free_port, port_is_free


def client(broker: EmbeddedBroker, name: str, will: str | None = None) -> tuple[mqtt.Client, queue.Queue]:
    """A connected client and the queue of (topic, payload) that it hears on a/#."""
    heard: queue.Queue = queue.Queue()
    subscribed = threading.Event()
    made = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
    made.on_message = lambda _client, _data, message: heard.put((message.topic, message.payload))
    made.on_connect = lambda c, *_: c.subscribe("a/#", 1)
    made.on_subscribe = lambda *_: subscribed.set()
    if will:
        made.will_set(will, b"gone", qos=1, retain=True)
    made.connect(broker.address, broker.port)
    made.loop_start()
    assert subscribed.wait(20)
    return made, heard


def test_a_message_arrives_a_retained_one_waits_and_a_will_is_told() -> None:
    with EmbeddedBroker() as broker:
        assert broker.port != 0
        one, heard = client(broker, "one")
        two, _ = client(broker, "two", will="a/will")
        two.publish("a/b", bytes(range(256)) * 400, qos=1)
        topic, payload = heard.get(timeout=20)
        assert (topic, payload) == ("a/b", bytes(range(256)) * 400)
        two.publish("a/kept", b"x", qos=1, retain=True)
        assert heard.get(timeout=20) == ("a/kept", b"x")
        three, late = client(broker, "three")
        assert late.get(timeout=20) == ("a/kept", b"x")
        two.socket().shutdown(socket.SHUT_RDWR)  # dies without saying goodbye
        assert heard.get(timeout=20) == ("a/will", b"gone")
        for each in (one, two, three):
            each.disconnect()
            each.loop_stop()


def test_a_taken_port_is_avoided_or_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not port_is_free(port)
        assert free_port(port) != port
        with EmbeddedBroker(port) as broker:
            assert broker.port != port
            assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        with pytest.raises(StethopiError, match=f"port {port} on 127.0.0.1 is taken; .*--broker"):
            EmbeddedBroker(port, exact=True).start()


def test_stopping_frees_the_port_and_may_be_repeated() -> None:
    broker = EmbeddedBroker(free_port()).start()
    port = broker.port
    assert not port_is_free(port)
    broker.stop()
    broker.stop()
    assert port_is_free(port)
    with EmbeddedBroker(port, exact=True) as again:
        assert again.port == port


def test_a_host_that_nobody_knows_is_named_and_not_called_taken() -> None:
    with pytest.raises(StethopiError, match=r"nowhere\.invalid: no address of this machine .*127\.0\.0\.1"):
        EmbeddedBroker(1883, address="nowhere.invalid", exact=True).start()
