"""What devices say of themselves: who is there, how they are, what their clocks say."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from device.contract.codec import BadMessage
from device.contract.control import Health, State
from device.contract.topics import Topic, read
from device.contract.vocabulary import Moment
from host.store.clocks import Pair, better, pair_of
from host.store.store import Store
from host.store.tables import ClockRow, DeviceRow

__all__ = ["Presence", "device_row", "note_clock"]


class Presence:
    """Takes what devices say of themselves into a store. For one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put_state(self, topic: Topic, state: State) -> None:
        """A device says who and how it is; its last will says that it is away."""
        with self._store.database.writing() as session:
            row = device_row(session, topic)
            row.online, row.why = state.online, state.why
            row.software, row.source = state.software, state.source
            # a will was written when the device started, and does not know a later bundle
            row.bundle = state.bundle or row.bundle
            if state.online:
                row.seen_s = self._store.now()

    def put_health(self, topic: Topic, payload: bytes) -> None:
        """Counters of a device; `payload` has been checked."""
        with self._store.database.writing() as session:
            row = device_row(session, topic)
            row.health, row.health_s = payload.decode(), self._store.now()
            row.seen_s = self._store.now()
            try:
                now = read(Health, payload).now
            except BadMessage:
                return
            note_clock(session, topic, now, self._store.now())

    def forget_online(self) -> None:
        """Nobody's state is known: the broker is away, or has not told yet."""
        with self._store.database.writing() as session:
            for row in session.scalars(select(DeviceRow).where(DeviceRow.online.is_(True))):
                row.online = None


def note_clock(session: Session, topic: Topic, moment: Moment, received_s: float | None = None) -> None:
    """Keep the pair of clocks that a moment gives, where it is better than what is known."""
    new = pair_of(moment, received_s)
    if new is None:
        return
    row = session.get(ClockRow, (topic.fleet, topic.device, moment.boot_id))
    if row is None:
        session.add(
            ClockRow(
                fleet=topic.fleet,
                device=topic.device,
                boot_id=moment.boot_id,
                offset_s=new.offset_s,
                by_device=new.by_device,
            )
        )
        session.flush()
        return
    best = better(Pair(row.offset_s, row.by_device), new)
    row.offset_s, row.by_device = best.offset_s, best.by_device


def device_row(session: Session, topic: Topic) -> DeviceRow:
    """The row of a device, made where it never spoke before."""
    row = session.get(DeviceRow, (topic.fleet, topic.device))
    if row is None:
        row = DeviceRow(fleet=topic.fleet, device=topic.device)
        session.add(row)
    return row
