"""A small ingest for tests of the device: keeps what it hears and follows the receipts of device.contract."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from paho.mqtt import client as paho

from device.contract.chunks import Receipt, check_chunk
from device.contract.codec import encode
from device.contract.control import Command
from device.contract.exam import Exam, exam_hash
from device.contract.topics import Address, Topic, host_filters, read
from tests.wire_schemas import check_published

__all__ = ["Ingest"]


class Ingest:
    """Hears one broker. What is wrong by the schemas is in `wrong`; the topics in their order in `heard`.

    loses: chunks that it pretends not to have heard, (site, n), each lost once.
    answer: what it does when an exam is complete: "store", "silent", "wrong hash" or "refuse".
    """

    def __init__(
        self, host: str, port: int, *, answer: str = "store", loses: set[tuple[str, int]] | None = None
    ) -> None:
        self.answer = answer
        self.loses = loses or set()
        self.heard: list[Topic] = []
        self.payloads: list[tuple[Topic, bytes]] = []
        self.wrong: list[str] = []
        self.stored: dict[str, dict[str, bytes]] = {}
        self.results: dict[str, bytes] = {}
        self._chunks: dict[tuple[str, str], dict[int, bytes]] = {}
        self._ready = threading.Event()
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTProtocolVersion.MQTTv311
        )
        self.client.on_connect = lambda c, *_: c.subscribe(host_filters())
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = self._on_message
        self.client.reconnect_delay_set(1, 1)
        self.client.connect(host, port)
        self.client.loop_start()
        assert self._ready.wait(30)

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def count(self, kind: str) -> int:
        return sum(topic.kind == kind for topic in self.heard)

    def last(self, kind: str) -> Any:
        """The last payload of a kind, read; None when none was heard."""
        for topic, payload in reversed(self.payloads):
            if topic.kind == kind and topic.payload_type is not None:
                return read(topic.payload_type, payload)
        return None

    def online(self) -> bool:
        """A device has said that it is there. From then on the broker passes commands on to it: it asks for
        them before it says so. On the device itself `online` comes a little earlier than that.
        """
        state = self.last("state")
        return state is not None and state.online

    def command(self, address: Address, command: Command, retain: bool = False) -> None:
        self.client.publish(address.command, encode(command), qos=1, retain=retain)

    def send_receipt(self, address: Address, receipt: Receipt) -> None:
        payload = encode(receipt)
        check_published(address.receipt, payload)
        self.client.publish(address.receipt, payload, qos=1)

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        try:
            topic = check_published(message.topic, message.payload)
            self.payloads.append((topic, message.payload))
            self.heard.append(topic)
            if topic.kind == "result":
                again = topic.exam in self.results
                self.results[topic.exam or ""] = message.payload
                self._judge(topic, again)
            elif topic.kind == "sound":
                where = (topic.site or "", topic.chunk or 0)
                if where in self.loses:
                    self.loses.remove(where)
                    return
                self._chunks.setdefault((topic.exam or "", topic.site or ""), {})[topic.chunk or 0] = (
                    message.payload
                )
                self._judge(topic, False)
        except Exception as error:
            self.wrong.append(f"{message.topic}: {error!r}")

    def _judge(self, topic: Topic, asked: bool) -> None:
        if topic.exam not in self.results or self.answer == "silent":
            return
        result = self.results[topic.exam]
        exam = read(Exam, result)
        digest = exam_hash(result)
        missing: dict[str, tuple[list[int], int]] = {}
        sounds = {}
        for site in exam.sites:
            chunks = self._chunks.get((exam.id, site.site), {})
            for n, payload in chunks.items():
                check_chunk(site.sound, n, payload)
            lacking = [n for n in range(site.sound.chunks) if n not in chunks]
            if lacking:
                missing[site.site] = (lacking, site.sound.chunks)
            else:
                sounds[site.site] = b"".join(chunks[n] for n in range(site.sound.chunks))
                assert hashlib.sha256(sounds[site.site]).hexdigest() == site.sound.sha256
        if missing:
            if asked:
                self.send_receipt(topic.address, Receipt.of_missing(exam.id, digest, missing))
            return
        if self.answer == "refuse":
            self.send_receipt(topic.address, Receipt.of_refused(exam.id, digest, "the store is read-only"))
            return
        self.stored[exam.id] = sounds
        wrong = self.answer == "wrong hash"
        self.send_receipt(topic.address, Receipt.of_stored(exam.id, "0" * 64 if wrong else digest))
