"""The embedded MQTT broker: a thread, for demos and a first evening. For the field, run Mosquitto.

It speaks MQTT 3.1.1 and forgets what is queued for a client that is away (amqtt 0.12 does; DESIGN §7 and the
receipts of `host.ingest.ingest` are made for that). It binds to one address, the loopback one unless told
otherwise.

    with EmbeddedBroker() as broker:
        print(broker.url)        # mqtt://127.0.0.1:1883, or the next free port
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

from device.errors import StethopiError

__all__ = ["DEFAULT_PORT", "EmbeddedBroker", "free_port", "port_is_free"]

DEFAULT_PORT = 1883
_TRIES = 5
_START_S = 15.0


def port_is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `address`:`port` now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as servers do: a port that merely waits for late packets of a closed connection is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def free_port(preferred: int = 0, address: str = "127.0.0.1") -> int:
    """`preferred` when nobody listens there, else a port that the system says is free."""
    if preferred and port_is_free(preferred, address):
        return preferred
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class EmbeddedBroker:
    """An MQTT 3.1.1 broker in a thread of this process.

    port: where to listen; 0 takes a free one. `exact` says that no other port will do: then a taken one
    raises StethopiError, else a free one is used and `port` says which. Safe to stop twice.
    """

    def __init__(self, port: int = 0, address: str = "127.0.0.1", *, exact: bool = False) -> None:
        self.address = address
        self.port = self.wanted_port = port
        self._exact = exact and port != 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def connect_host(self) -> str:
        """What a client of this machine connects to; bound to every address, that is the loopback one."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)

    @property
    def url(self) -> str:
        """The broker as a client of this machine names it, mqtt://HOST:PORT."""
        return f"mqtt://{self.connect_host}:{self.port}"

    def start(self) -> EmbeddedBroker:
        """Listen; returns when clients can connect. StethopiError when it cannot."""
        try:
            socket.getaddrinfo(self.address, None)
        except OSError as error:
            raise StethopiError(
                f"{self.address}: no address of this machine ({error.strerror}); give one, such as 127.0.0.1"
            ) from None
        if self._exact and not port_is_free(self.port, self.address):
            raise StethopiError(
                f"port {self.port} on {self.address} is taken; stop the broker that runs there, use it with "
                f"--broker mqtt://{self.address}:{self.port}, or give another port"
            )
        wanted = self.port
        for _ in range(_TRIES):
            self.port = wanted if self._exact else free_port(wanted, self.address)
            self._ready.clear()
            self._failure = None
            self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
            self._thread.start()
            if not self._ready.wait(_START_S):
                raise StethopiError(
                    f"the embedded broker did not start within {_START_S:.0f} s; use Mosquitto"
                )
            if self._failure is None:
                return self
            # somebody took the port between the question and the bind: ask again
            self._thread.join()
            wanted = wanted if self._exact else 0
        raise StethopiError(
            f"the embedded broker cannot listen on {self.address}:{self.port}: {self._failure}"
        )

    def stop(self) -> None:
        """Close every connection and the port. Safe to call twice."""
        loop, stop, thread = self._loop, self._stop, self._thread
        if thread is None or not thread.is_alive() or loop is None or stop is None:
            return
        try:
            loop.call_soon_threadsafe(stop.set)
        except RuntimeError:  # the loop has just ended by itself
            return
        thread.join(timeout=10.0)

    def __enter__(self) -> EmbeddedBroker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # handed to start(), which raises it as one line
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from amqtt.broker import Broker

        # every connection and every missing client is an INFO or WARNING there, and a client that is
        # killed is a traceback: none of it helps the person at the terminal
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._loop.set_exception_handler(_quiet)
        host = f"[{self.address}]" if ":" in self.address else self.address
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{host}:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await broker.start()
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            await broker.shutdown()


def _quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exceptions of killed connections go to the debug log instead of the terminal."""
    logging.getLogger(__name__).debug(
        "embedded broker: %s", context.get("exception") or context.get("message")
    )
