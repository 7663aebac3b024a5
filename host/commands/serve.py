"""`stethopi serve`: ingest and dashboard in one process, with the embedded broker if wished.

    stethopi serve --broker mqtt://pi-host:1883 --store exams
    stethopi serve --embedded-broker --http 127.0.0.1:8080

Everything listens on the loopback address unless another is given, and it says so when others can reach it.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from device.errors import BadInput, StethopiError

if TYPE_CHECKING:
    import socket
    import threading

    from device.delivery.link import Broker
    from host.dashboard.live import Hub
    from host.ingest.embedded_broker import EmbeddedBroker
    from host.ingest.ingest import Ingest
    from host.store.store import Store

__all__ = [
    "DEFAULT_HTTP_PORT",
    "Ending",
    "Host",
    "add_parser",
    "default_store",
    "is_loopback",
    "parse_listen",
    "start_logging",
]

DEFAULT_HTTP_PORT = 8080
_START_S = 20.0


def default_store() -> Path:
    """Where exams go unless told otherwise: $XDG_DATA_HOME/stethopi/store, ~/.local/share when unset."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "stethopi" / "store"


def parse_listen(text: str, what: str, default_host: str = "127.0.0.1") -> tuple[str, int]:
    """HOST:PORT, [IPV6]:PORT or PORT. BadInput when it is none."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or default_host
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise BadInput(f"{what} {text}: not HOST:PORT; write for example {what} 127.0.0.1:8080")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can connect to a server bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Host:
    """A whole host in threads of this process: broker (embedded or another's), store, ingest, dashboard.

    `start` returns when the page can be loaded; `url` says where. Parts end in the reverse order by `stop`,
    which is safe to call twice; also a context manager.

    http_port: 0 takes any free one. `exact_http` makes a taken port an error; without it a free one is used.
    """

    def __init__(
        self,
        store: Path,
        *,
        broker: Broker | None = None,
        embedded: EmbeddedBroker | None = None,
        http_host: str = "127.0.0.1",
        http_port: int = DEFAULT_HTTP_PORT,
        exact_http: bool = False,
        allow_hosts: tuple[str, ...] = (),
        bundle: Path | None = None,
    ) -> None:
        self.http_host, self.http_port = http_host, http_port
        self._folder = store
        self._broker, self._embedded = broker, embedded
        self._exact_http = exact_http
        self._allow_hosts = allow_hosts
        self._bundle = bundle
        self.hub: Hub | None = None
        self.store: Store | None = None
        self.ingest: Ingest | None = None
        self._server: Any = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        host = self.http_host
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1"
        return f"http://[{host}]:{self.http_port}" if ":" in host else f"http://{host}:{self.http_port}"

    @property
    def broker_address(self) -> Broker:
        from device.delivery.link import Broker

        if self._embedded is not None:
            return Broker(self._embedded.connect_host, self._embedded.port)
        assert self._broker is not None
        return self._broker

    def start(self) -> Host:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        import threading

        from host.dashboard.app import create_app
        from host.dashboard.live import Hub
        from host.ingest.ingest import Ingest
        from host.store.store import Store

        self._bind()
        self.store = Store(self._folder)
        if self._embedded is not None:
            self._embedded.start()
        self.hub = Hub()
        self.ingest = Ingest(self.store, self.broker_address, tell=self.hub.tell)
        app = create_app(
            self.store, self.hub, hosts=self._allow_hosts, bundle=self._bundle, send=self.ingest.send
        )
        self._server = _uvicorn(app)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="dashboard", daemon=True
        )
        self._thread.start()
        self.ingest.start()
        waited = threading.Event()
        for _ in range(int(_START_S / 0.02)):
            if self._server.started:
                return
            if not self._thread.is_alive():
                break
            waited.wait(0.02)
        raise StethopiError(f"the dashboard on {self.url} did not start; run with DEBUG=1 to see why")

    def _bind(self) -> None:
        import socket

        family = socket.AF_INET6 if ":" in self.http_host else socket.AF_INET
        for port in [self.http_port] if self._exact_http else [self.http_port, 0]:
            try:
                self._socket = socket.create_server((self.http_host, port), family=family, backlog=128)
                break
            except OSError as error:
                why = error
        else:
            raise BadInput(
                f"--http {self.http_host}:{self.http_port}: cannot listen there "
                f"({str(why.strerror).split(' (while')[0]}); {self._elsewhere(why)}"
            )
        self.http_port = int(self._socket.getsockname()[1])

    def _elsewhere(self, why: OSError) -> str:
        import errno

        if why.errno == errno.EADDRINUSE:
            return f"give another port, for example --http {self.http_host}:{self.http_port % 65535 + 1}"
        if why.errno == errno.EACCES:
            return f"give a port from 1024 on, for example --http {self.http_host}:{DEFAULT_HTTP_PORT}"
        return "give an address of this machine: 127.0.0.1 for itself, 0.0.0.0 for all its networks"

    def stop(self) -> None:
        if self.ingest is not None:
            self.ingest.stop()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=15.0)
        if self._socket is not None:
            self._socket.close()
        if self._embedded is not None:
            self._embedded.stop()
        if self.store is not None:
            self.store.close()

    def __enter__(self) -> Host:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _uvicorn(app: Any) -> Any:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            log_level="warning",
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=4096,
            timeout_graceful_shutdown=3,
            server_header=False,
        )
    )


def start_logging() -> None:
    """Sentences of the long-running parts on stderr, one line each."""
    import logging

    level = logging.DEBUG if os.environ.get("DEBUG") else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("asyncio", "uvicorn.error", "websockets", "amqtt", "transitions"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL if noisy != "uvicorn.error" else logging.ERROR)


class Ending:
    """SIGTERM or Ctrl-C as something to wait for until the end of the `with`; neither starting nor tidying up
    is torn apart by it."""

    def __init__(self) -> None:
        import threading

        self._ended = threading.Event()
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Ending:
        import signal

        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, lambda *_: self._ended.set())
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        for number, handler in self._old.items():
            signal.signal(number, handler)

    def wait(self, tend: Callable[[], None] = lambda: None) -> None:
        """Return when it is time to end; call `tend` four times a second until then."""
        while not self._ended.wait(0.25):
            tend()


def _run(arguments: argparse.Namespace) -> int:
    from host.ingest.address import broker_at
    from host.ingest.embedded_broker import DEFAULT_PORT, EmbeddedBroker

    start_logging()
    http_host, http_port = parse_listen(arguments.http or f"127.0.0.1:{DEFAULT_HTTP_PORT}", "--http")
    embedded = broker = None
    if arguments.embedded_broker is not None:
        if arguments.password_file is not None:
            raise BadInput(
                "--password-file: the embedded broker asks for none; use --broker mqtt://USER@HOST"
            )
        exact = arguments.embedded_broker != ""
        at, port = parse_listen(arguments.embedded_broker or str(DEFAULT_PORT), "--embedded-broker")
        embedded = EmbeddedBroker(port, at, exact=exact)
    else:
        broker = broker_at(arguments.broker or f"mqtt://127.0.0.1:{DEFAULT_PORT}", arguments.password_file)
    host = Host(
        arguments.store or default_store(),
        broker=broker,
        embedded=embedded,
        http_host=http_host,
        http_port=http_port,
        exact_http=arguments.http is not None,
        allow_hosts=tuple(arguments.allow_host or ()),
        bundle=arguments.bundle,
    )
    with Ending() as ending, host:
        assert host.store is not None
        if host.http_port != http_port and http_port:
            print(f"stethopi: port {http_port} is taken, using {host.http_port}", file=sys.stderr)
        if embedded is not None and embedded.port != embedded.wanted_port:
            print(f"stethopi: port {embedded.wanted_port} is taken, using {embedded.port}", file=sys.stderr)
        if not is_loopback(http_host):
            print(
                f"stethopi: everybody who reaches {http_host}:{host.http_port} can read the exams "
                "and choose what a stethoscope plays; put a proxy with a password before it",
                file=sys.stderr,
            )
        if embedded is not None and not is_loopback(embedded.address):
            print(
                f"stethopi: everybody who reaches {embedded.address}:{embedded.port} can send exams; "
                "for the field use Mosquitto with passwords",
                file=sys.stderr,
            )
        kind = "embedded broker" if embedded is not None else "broker"
        print(
            f"dashboard {host.url}   {kind} mqtt://{host.broker_address}   store {host.store.folder}",
            flush=True,
        )
        print("It screens; it does not diagnose. Not a medical device. Ctrl-C ends it.", flush=True)
        ending.wait()
    return 0


def add_parser(commands: Any) -> None:
    """Add `serve` to the subparsers of `stethopi`."""
    parser = commands.add_parser(
        "serve",
        help="take exams from a broker, keep them, show them on a dashboard",
        description="Take exams from a broker, keep them in a store, answer with receipts, and show them "
        "on a dashboard. It screens; it does not diagnose, and it is no medical device.",
        epilog="example: stethopi serve --embedded-broker --store exams",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--broker",
        metavar="URL",
        help="mqtt://[USER@]HOST[:PORT], or mqtts:// for TLS (default: mqtt://127.0.0.1:1883)",
    )
    where.add_argument(
        "--embedded-broker",
        nargs="?",
        const="",
        metavar="[HOST:]PORT",
        help="start a broker of its own, for a first evening (default: 127.0.0.1:1883, or a free port)",
    )
    parser.add_argument(
        "--http",
        metavar="[HOST:]PORT",
        help=f"where the dashboard listens (default: 127.0.0.1:{DEFAULT_HTTP_PORT}, or a free port)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="where exams are kept (default: ~/.local/share/stethopi/store)",
    )
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="file that holds the broker's password for USER"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="host name, beside localhost and addresses, by which the dashboard may be called; repeatable",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="model bundle for the clean sound (default: those released)",
    )
    parser.set_defaults(func=_run)
