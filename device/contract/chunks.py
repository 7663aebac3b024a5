"""Sounds in chunks, and the receipts for them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from device.contract.codec import BadMessage, Many, OneOf, Text
from device.contract.exam import SoundFile
from device.contract.vocabulary import (
    MOST_CHUNKS,
    MOST_SITES,
    SCHEMA,
    SHA256,
    TRACK,
    ExamId,
    Says,
    Schema,
    chunk_span,
)

__all__ = ["Receipt", "check_chunk", "bitmap", "missing_chunks"]


@dataclass(frozen=True)
class Receipt:
    """What ingest has of an exam. Made by `of_stored`, `of_missing`, `of_refused`."""

    exam: ExamId
    status: Annotated[str, OneOf("stored", "missing", "refused")]
    sha256: Annotated[str, Text(64, SHA256), "hash of the exam: sha256 of the result payload"]
    missing: (
        Annotated[
            dict[str, Annotated[str, Text(4 * (MOST_CHUNKS // 8 // 3 + 1), r"[A-Za-z0-9+/]*={0,2}")]],
            Many(2 * MOST_SITES, fewest=1, keys=TRACK),
            "site, or site.ecg → base64 of a bitmap; bit n (lowest first) set: chunk n is missing",
        ]
        | None
    ) = None
    why: Says | None = None
    schema: Schema = SCHEMA

    def problem(self) -> str | None:
        """What fields say against each other; None when they agree."""
        if (self.status == "missing") != (self.missing is not None):
            return "missing: belongs to status missing, and to no other"
        if self.status == "refused" and not self.why:
            return "why: a refusal says why"
        return None

    @classmethod
    def of_stored(cls, exam: str, sha256: str) -> Receipt:
        """Everything is here, under this hash."""
        return cls(exam=exam, status="stored", sha256=sha256)

    @classmethod
    def of_missing(cls, exam: str, sha256: str, missing: Mapping[str, tuple[Iterable[int], int]]) -> Receipt:
        """`missing`: site → (numbers of the missing chunks, chunks of that site in all)."""
        maps = {site: bitmap(numbers, chunks) for site, (numbers, chunks) in missing.items()}
        return cls(exam=exam, status="missing", sha256=sha256, missing=maps)

    @classmethod
    def of_refused(cls, exam: str, sha256: str, why: str) -> Receipt:
        """This result will never be taken; `why` is cut to 300 characters."""
        return cls(exam=exam, status="refused", sha256=sha256, why=why[:300])


def check_chunk(sound: SoundFile, n: int, payload: bytes) -> None:
    """BadMessage unless `payload` has just the length that chunk `n` of `sound` must have."""
    if not 0 <= n < sound.chunks:
        raise BadMessage(f"chunk {n}: {sound.file} has {sound.chunks}")
    first, past = chunk_span(n, sound.size, sound.chunk_size)
    if len(payload) != past - first:
        raise BadMessage(f"chunk {n} of {sound.file}: {len(payload)} bytes, must be {past - first}")


def bitmap(numbers: Iterable[int], chunks: int) -> str:
    """Base64 of the bitmap of `numbers` out of `chunks`: bit n % 8 (lowest first) of byte n // 8."""
    bits = bytearray(-(-chunks // 8))
    for n in numbers:
        if not 0 <= n < chunks:
            raise ValueError(f"chunk {n} of {chunks}")
        bits[n // 8] |= 1 << n % 8
    return base64.b64encode(bytes(bits)).decode("ascii")


def missing_chunks(text: str, chunks: int) -> list[int]:
    """The numbers in a bitmap, rising; BadMessage unless it is one for just `chunks` chunks."""
    try:
        bits = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadMessage(f"bitmap: {error}") from None
    if len(bits) != -(-chunks // 8):
        raise BadMessage(f"bitmap: {len(bits)} bytes for {chunks} chunks")
    numbers = [n for n in range(len(bits) * 8) if bits[n // 8] >> n % 8 & 1]
    if numbers and numbers[-1] >= chunks:
        raise BadMessage(f"bitmap: chunk {numbers[-1]} of {chunks}")
    return numbers
