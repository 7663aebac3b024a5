"""The tables."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["DeviceRow", "ExamRow", "WindowEntry", "SoundRow", "ChunkRow"]


class Base(DeclarativeBase):
    pass


class DeviceRow(Base):
    """A stethoscope, as it last spoke."""

    __tablename__ = "devices"
    fleet: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    online: Mapped[bool | None]
    """None: not known, because the broker is away or has not told yet."""
    software: Mapped[str | None]
    bundle: Mapped[str | None]
    why: Mapped[str | None]
    source: Mapped[str | None]
    seen_s: Mapped[float | None]
    """Host time, seconds since 1970 UTC, of its last message."""
    health: Mapped[str | None]
    """Its last `health` payload, JSON."""
    health_s: Mapped[float | None]


class ExamRow(Base):
    """One exam; its sounds may still be on the way."""

    __tablename__ = "exams"
    id: Mapped[str] = mapped_column(primary_key=True)
    fleet: Mapped[str]
    device: Mapped[str]
    sha256: Mapped[str]
    """Hash of the exam: sha256 of `result`."""
    result: Mapped[bytes] = mapped_column(LargeBinary)
    """The payload, byte for byte."""
    received_s: Mapped[float]
    complete_s: Mapped[float | None]
    """When its last sound was whole; None: partial."""
    label: Mapped[str]
    probability: Mapped[float | None]
    quality: Mapped[float | None]
    started_s: Mapped[float]
    clock_trust: Mapped[str]
    bundle: Mapped[str]
    __table_args__ = (Index("exams_by_arrival", "received_s", "id"),)


class StartRow(Base):
    """When an exam began by the clock that never jumps: what `clocks` corrects."""

    __tablename__ = "starts"
    exam: Mapped[str] = mapped_column(ForeignKey("exams.id", ondelete="CASCADE"), primary_key=True)
    boot_id: Mapped[str]
    monotonic_s: Mapped[float]


class ClockRow(Base):
    """The trusted pair of a device's clocks, of one boot."""

    __tablename__ = "clocks"
    fleet: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    boot_id: Mapped[str] = mapped_column(primary_key=True)
    offset_s: Mapped[float]
    """Wall time at the boot's monotonic second 0, seconds since 1970 UTC."""
    by_device: Mapped[bool]


class SiteRow(Base):
    """One auscultation site of an exam, in the order of the examination."""

    __tablename__ = "sites"
    exam: Mapped[str] = mapped_column(ForeignKey("exams.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str]
    seconds: Mapped[float]
    heart_rate_bpm: Mapped[float | None]
    good_windows: Mapped[int]


class WindowEntry(Base):
    """One classified window of a site."""

    __tablename__ = "windows"
    exam: Mapped[str] = mapped_column(ForeignKey("exams.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[int]
    probability: Mapped[float | None]
    quality: Mapped[float | None]
    reasons: Mapped[str]


class SoundRow(Base):
    """A site's sound file as its result promises it, here or on its way. The ECG beside it is a row of its
    own, `site` being `AV.ecg`.
    """

    __tablename__ = "sounds"
    exam: Mapped[str] = mapped_column(ForeignKey("exams.id", ondelete="CASCADE"), primary_key=True)
    site: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    file: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    chunk_size: Mapped[int]
    chunks: Mapped[int]
    complete_s: Mapped[float | None]
    spoilt: Mapped[int]
    """How often all chunks were there and did not make the sha256."""


class ChunkRow(Base):
    """A chunk whose file is not whole yet. The exam may be unknown still."""

    __tablename__ = "chunks"
    exam: Mapped[str] = mapped_column(primary_key=True)
    fleet: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    received_s: Mapped[float]
    data: Mapped[bytes] = mapped_column(LargeBinary)


class ReceiptRow(Base):
    """What was answered to a device, the last few of each exam."""

    __tablename__ = "receipts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    exam: Mapped[str] = mapped_column(index=True)
    sent_s: Mapped[float]
    status: Mapped[str]
    sha256: Mapped[str]
    why: Mapped[str | None]


class QuarantineRow(Base):
    """A result that was refused, kept for a person to look at."""

    __tablename__ = "aside"
    exam: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    fleet: Mapped[str]
    device: Mapped[str]
    received_s: Mapped[float]
    why: Mapped[str]
    file: Mapped[str | None]


class AboutRow(Base):
    """Facts of the store itself."""

    __tablename__ = "about"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
