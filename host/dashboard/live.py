"""From ingest's thread to every open page: notices over WebSockets, in memory only.

A page that comes late gets what the running exams have shown so far. A page that is slow loses waveform,
never an event.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from device.contract.codec import to_json
from device.contract.live import LiveEcg, LiveExam, LiveQuality, LiveWave, LiveWindow
from device.rates import WORKING_RATE_HZ
from host.ingest.ingest import Notice

__all__ = ["Hub", "page_message"]

_WAVES_KEPT = 100
_FORGET_S = 12.0
_QUEUE = 400
_MOST_PAGES = 200


def page_message(notice: Notice) -> dict[str, Any]:
    """A notice as the page hears it: seconds instead of sample numbers, unknown as null."""
    made: dict[str, Any]
    if notice["type"] == "answer":
        answer = notice["message"]
        made = {"type": "answer", "device": notice["device"], "command": answer.command}
        made |= {"name": answer.name, "ok": answer.ok, "says": answer.says}
        return made | {"listening": to_json(answer.listening)}
    if notice["type"] != "live":
        return dict(notice)
    live = notice["message"]
    made = {"device": notice["device"], "name": notice["device"].split("/", 1)[1]}
    if isinstance(live, LiveWave):
        rate = WORKING_RATE_HZ / live.every
        made |= {"type": "wave", "t": live.index / WORKING_RATE_HZ, "rate": rate, "exam": live.exam}
        made |= {"raw": live.raw, "clean": live.clean}
    elif isinstance(live, LiveEcg):
        at = None if live.at is None else live.at / WORKING_RATE_HZ
        made |= {"type": "ecg", "t": at, "rate": live.rate_hz, "exam": live.exam, "lead": live.lead}
        made |= {"raw": live.raw, "clean": live.clean, "gaps": live.gaps}
        made |= {"clean_gaps": live.clean_gaps}
    elif isinstance(live, LiveQuality):
        made |= {"type": "quality", "score": live.quality, "reasons": live.reasons, "exam": live.exam}
        made |= {"heart_rate": live.heart_rate_bpm}
    elif isinstance(live, LiveWindow):
        made |= {"type": "window", "exam": live.exam, "site": live.site, "start": live.start}
        made |= {"probability": live.probability, "quality": live.quality, "reasons": live.reasons}
        made |= {"good": live.good}
    elif isinstance(live, LiveExam):
        made |= {"type": "exam", "exam": live.exam, "state": live.state, "site": live.site}
        made |= {"position": live.position, "sites": live.sites, "seconds": live.seconds}
        made |= {"good_windows": live.good_windows, "needed_windows": live.needed_windows}
        verdict = live.verdict
        made |= {"label": verdict.label if verdict else None}
        made |= {"probability": verdict.probability if verdict else None}
    return made


@dataclass
class _Shown:
    """What a page that opens now must know of one device."""

    exam: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    windows: list[dict[str, Any]] = field(default_factory=list)
    waves: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_WAVES_KEPT))
    ecg: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_WAVES_KEPT))
    heard_s: float = 0.0


class Hub:
    """Spreads notices to pages. `tell` may be called by any thread; `serve` is a WebSocket's life."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pages: set[asyncio.Queue[str]] = set()
        self._shown: dict[str, _Shown] = {}
        self._broker = False
        self._lock = threading.Lock()

    def tell(self, notice: Notice) -> None:
        """Send a notice to the open pages, and keep what a page that opens later must know of it."""
        message = page_message(notice)
        with self._lock:
            self._remember(message)
            loop = self._loop
        if loop is not None and self._pages:
            text = json.dumps(message)
            try:
                loop.call_soon_threadsafe(self._spread, text, message["type"] in ("wave", "ecg"))
            except RuntimeError:  # the server is ending
                pass

    def _remember(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "broker":
            self._broker = bool(message["connected"])
            return
        if kind == "device" and message.get("online") is False:
            self._shown.pop(message["device"], None)
            return
        if kind not in ("wave", "ecg", "quality", "window", "exam"):
            return
        shown = self._shown.setdefault(message["device"], _Shown())
        shown.heard_s = time.monotonic()
        if kind == "wave":
            shown.waves.append(message)
        elif kind == "ecg":
            shown.ecg.append(message)
        elif kind == "quality":
            shown.quality = message
        elif kind == "window":
            shown.windows = [w for w in shown.windows if w["exam"] == message["exam"]][-200:] + [message]
        else:
            if shown.exam is None or shown.exam["exam"] != message["exam"]:
                shown.windows = []
            shown.exam = message
            if message["state"] in ("finished", "cancelled", "partial"):
                self._shown.pop(message["device"])

    def _hello(self) -> str:
        with self._lock:
            now = time.monotonic()
            for device, shown in list(self._shown.items()):
                if now - shown.heard_s > _FORGET_S:
                    self._shown.pop(device)
            live = [
                {
                    "device": device,
                    "messages": [
                        message
                        for message in (shown.exam, *shown.windows, shown.quality, *shown.waves, *shown.ecg)
                        if message is not None
                    ],
                }
                for device, shown in self._shown.items()
            ]
            return json.dumps({"type": "hello", "broker": self._broker, "live": live})

    def _spread(self, text: str, may_be_lost: bool) -> None:
        for queue in list(self._pages):
            if queue.full():
                if may_be_lost:
                    continue
                queue.get_nowait()
            queue.put_nowait(text)

    async def serve(self, socket: WebSocket) -> None:
        """Accept a page, tell it what is going on, and then everything that happens, until it goes."""
        if len(self._pages) >= _MOST_PAGES:
            await socket.close(code=1013)
            return
        await socket.accept()
        queue: asyncio.Queue[str] = asyncio.Queue(_QUEUE)
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._pages.add(queue)
        gone = asyncio.ensure_future(_wait_gone(socket))
        try:
            await socket.send_text(self._hello())
            while not gone.done():
                waiting = asyncio.ensure_future(queue.get())
                await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    break
                await socket.send_text(waiting.result())
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self._pages.discard(queue)
            gone.cancel()


async def _wait_gone(socket: WebSocket) -> None:
    """Pages only listen; what they say is read, so that their leaving is seen, and ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
