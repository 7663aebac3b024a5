"""From any rate to the working rate and back: windowed-sinc FIR, polyphase, streaming, in NumPy alone.

`Decimator` and `Interpolator` are for sound; `Resampler` takes any two rates, as the ECG needs.

One prototype in continuous time serves every rate of sound: a sinc under a Kaiser window (J. F. Kaiser,
"Nonrecursive digital filter design using the I0-sinh window function", 1974), 12.25 ms to each side. It
passes 800 Hz within 0.01 dB and stops 1,000 Hz by 80 dB, which costs 12.25 ms of delay at every rate. The
filter is symmetric and sample n of the output stands for the instant n / 2000 s of the input: the delay
says *when* a sample comes out, never *where* it is.

Every output is a dot product of a fixed length, computed in whole hops on the absolute grid, so any
chopping of the input gives the same bits.

    python -I -m device.checks.figures.resample FILE
        delay, ripple, stop band, chopped against whole, operations
"""

from __future__ import annotations

from math import ceil, gcd, inf

import numpy as np

from device.arrays import Indices, Samples
from device.rates import HOP, WORKING_RATE_HZ, check_rate

__all__ = [
    "PASS_HZ",
    "STOP_HZ",
    "Decimator",
    "Interpolator",
    "Resampler",
    "decimate",
    "resample",
    "to_working",
    "upsample",
    "working_length",
]


PASS_HZ = 800.0
"""Passed within 0.1 dB."""

STOP_HZ = 1000.0
"""From here on 80 dB are taken away: above half the working rate nothing may fold back."""

_SIDE_S = 0.01225
"""Length of one side of the prototype; its delay."""

_CUTOFF_HZ = 896.4
"""Where the prototype is 6 dB down. Searched for this length: the widest pass band that keeps 80 dB at 1,000
Hz.
"""

_ATTENUATION_DB = 81.0

_PASSED = 5 / 6
"""Of half the lower rate, by `Resampler`."""

_EXACT = 1 << 20
"""A table of up to this many coefficients holds every phase; above, phases are interpolated."""


def working_length(samples: int, rate_hz: int) -> int:
    """How many working-rate samples stand for `samples` samples at `rate_hz`: the ceiling of their ratio."""
    return -(-samples * WORKING_RATE_HZ // rate_hz)


def to_working(start: int, end: int, rate_hz: int, to_hz: int = WORKING_RATE_HZ) -> tuple[int, int]:
    """The span [start, end) of samples at `rate_hz` as the smallest span at the working rate, or at `to_hz`,
    that covers it.
    """
    return start * to_hz // rate_hz, -(-end * to_hz // rate_hz)


def _kaiser_beta(attenuation_db: float) -> float:
    """Kaiser 1974, the branch for more than 50 dB."""
    return 0.1102 * (attenuation_db - 8.7)


class _Phases:
    """The prototype sampled for every position that an output can have between two inputs.

    An output at input position p (in input samples, p = whole + fraction) is the dot product of
    `coefficients(fraction)` with the `taps` inputs around it: whole - left … whole + right.
    """

    def __init__(
        self, rate_in: int, rate_out: int, side_s: float, cutoff_hz: float, attenuation_db: float
    ) -> None:
        common = gcd(rate_in, rate_out)
        self.step = rate_in // common
        """Inputs in one period of the phases, with `count` outputs."""
        self.count = rate_out // common
        self.left = int(side_s * rate_in)
        self.right = self.left + (1 if self.count > 1 else 0)
        self.taps = self.left + self.right + 1
        self.exact = self.count * self.taps <= _EXACT
        # Linear interpolation between neighbours errs by (2 pi f / (rows rate_in))^2 / 8: below -105 dB with
        # these
        rows = self.count if self.exact else (256 if rate_in >= 20_000 else 1024)
        fraction = np.arange(rows + (not self.exact))[:, None] / rows
        t = (np.arange(-self.left, self.right + 1)[None, :] - fraction) / rate_in
        inside = 1.0 - np.square(t / side_s)
        beta = _kaiser_beta(attenuation_db)
        window = np.where(inside > 0, np.i0(beta * np.sqrt(np.maximum(inside, 0.0))), 0.0)
        table = np.sinc(2.0 * cutoff_hz * t) * window
        # every phase passes a constant as it is, else the level would ripple with the phase
        table /= table.sum(axis=1, keepdims=True)
        self.table = np.ascontiguousarray(table, dtype=np.float32)
        self.slope = None if self.exact else np.ascontiguousarray(np.diff(table, axis=0), dtype=np.float32)

    def at(self, output: Indices) -> tuple[Indices, Samples]:
        """For absolute output indices (int64, (m,)): input index of the first tap (m,), coefficients (m,
        taps).
        """
        whole, rest = np.divmod(output * self.step, self.count)
        first = whole - self.left
        if self.exact:
            return first, self.table[rest]
        assert self.slope is not None
        place = rest * (len(self.slope) / self.count)
        row = place.astype(np.int64)
        part = (place - row).astype(np.float32)[:, None]
        return first, self.table[row] + part * self.slope[row]


class _Polyphase:
    """Streaming rate change on an absolute grid of `unit` outputs. What both directions share."""

    def __init__(
        self, rate_in: int, rate_out: int, unit: int, phases: _Phases | None, hold: bool = False
    ) -> None:
        self._hold = hold
        self._in, self._out = rate_in, rate_out
        self._unit = unit
        self._phases = phases
        self._left = phases.left if phases else 0
        self._right = phases.right if phases else 0
        self._buffer = np.zeros(self._left, np.float32)
        self._start = -self._left  # absolute input index of the buffer's first sample
        self._emitted = 0
        self._steps = np.arange(unit, dtype=np.int64)

    @property
    def delay_s(self) -> float:
        """Seconds of sound after its own instant that an output waits for; the FIR's part alone."""
        return self._right / self._in

    @property
    def taps(self) -> int:
        """Multiplications for one output sample; 0 where nothing is filtered."""
        return self._phases.taps if self._phases else 0

    @property
    def mac_per_s(self) -> int:
        """Multiply-accumulate operations for one second of sound, interpolation of coefficients included."""
        each = self.taps if self._phases is None or self._phases.exact else 2 * self.taps
        return each * self._out

    @property
    def received(self) -> int:
        """Input samples so far."""
        return self._start + len(self._buffer)

    @property
    def held(self) -> int:
        """Output samples that the input so far stands for and that have not come out yet."""
        return self.received * self._out // self._in - self._emitted

    def process(self, x: Samples) -> Samples:
        """Take any number of input samples, float32 (n,); give what is ready, float32 (m,), in whole
        units.
        """
        self._append(x)
        return self._compute(inf)

    def skip(self, seconds: int) -> None:
        """As `process` of so many whole seconds of zeros, whose outputs are zeros too, at no cost. Allowed
        after zeros alone, a second of them or more.
        """
        if self._buffer.any():
            raise ValueError("only nothing can be skipped: the filter still holds sound")
        # both rates divide a second, so the grid of the outputs and their phases stay where they are
        self._start += seconds * self._in
        self._emitted += seconds * self._out

    def _append(self, x: Samples) -> None:
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 1:
            raise ValueError(f"one channel of samples expected, shape (n,), got {x.shape}")
        if self._hold and len(x) and self.received == 0:
            self._buffer = np.full(self._left, x[0], np.float32)
        self._buffer = np.concatenate([self._buffer, x]) if len(x) else self._buffer

    def _compute(self, total: float) -> Samples:
        """All whole units whose inputs are there and that begin before output `total`."""
        pieces = []
        while self._emitted < total:
            last = self._emitted + self._unit - 1
            if last * self._in // self._out + self._right >= self.received:
                break
            pieces.append(self._one_unit())
            self._emitted += self._unit
        # what no later output needs is let go
        keep = max(self._emitted * self._in // self._out - self._left - self._start, 0)
        if keep:
            self._buffer = self._buffer[keep:].copy()
            self._start += keep
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _one_unit(self) -> Samples:
        phases = self._phases
        if phases is None:
            at = self._emitted - self._start
            return self._buffer[at : at + self._unit]
        ready: Samples
        if phases.count == 1:  # every `step`-th input: the windows are a view, nothing is copied
            at = self._emitted * phases.step - self._left - self._start
            span = self._buffer[at : at + (self._unit - 1) * phases.step + phases.taps]
            windows = np.lib.stride_tricks.sliding_window_view(span, phases.taps)[:: phases.step]
            ready = np.einsum("ij,j->i", windows, phases.table[0])
        else:
            first, coefficients = phases.at(self._emitted + self._steps)
            windows = np.lib.stride_tricks.sliding_window_view(self._buffer, phases.taps)
            ready = np.einsum("ij,ij->i", windows[first - self._start], coefficients)
        return ready

    def _flush(self, total: int) -> Samples:
        """The outputs up to `total`, as if silence (`hold`: the last value) followed; then this stage is at
        its end.
        """
        emitted = self._emitted
        missing = (total + self._unit) * self._in // self._out + self._right + 1 - self.received
        after = self._buffer[-1] if self._hold and len(self._buffer) else np.float32(0.0)
        self._append(np.full(max(missing, 0), after, np.float32))
        rest = self._compute(total)
        return rest[: max(total - emitted, 0)]


class Decimator(_Polyphase):
    """Sound at any whole rate from 2 to 192 kHz → the working rate of 2 kHz. 2 kHz passes untouched.

    `process` takes any number of samples, float32 (n,), and gives float32 (m,) in whole hops of 16; `flush`
    gives the rest. In all, N samples become ceil(N * 2000 / rate_hz). Sample n stands for n / 2000 s;
    before the first and after the last sample silence is assumed.

    Raises BadInput for a rate that is not supported.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = check_rate(rate_hz)
        untouched = self.rate_hz == WORKING_RATE_HZ
        phases = None
        if not untouched:
            phases = _Phases(self.rate_hz, WORKING_RATE_HZ, _SIDE_S, _CUTOFF_HZ, _ATTENUATION_DB)
        super().__init__(self.rate_hz, WORKING_RATE_HZ, HOP, phases)

    def flush(self) -> Samples:
        """What is left, float32 (m,); may end within a hop. Further samples are not expected."""
        return self._flush(working_length(self.received, self.rate_hz))


class Interpolator(_Polyphase):
    """Working-rate sound → `rate_hz`, aligned: output m stands for m / rate_hz s.

    `sharp` keeps everything that 2 kHz can hold up to 960 Hz and takes 31 ms, for files; otherwise 800 Hz
    are passed and 6.4 ms taken, for the ear. Output comes in units of about 8 ms.

    Raises BadInput for a rate that is not supported.
    """

    def __init__(self, rate_hz: int, *, sharp: bool = True) -> None:
        self.rate_hz = check_rate(rate_hz)
        phases = None
        if self.rate_hz != WORKING_RATE_HZ:
            side_s, cutoff_hz = (0.031, 1000.0) if sharp else (0.0064, 1000.0)
            phases = _Phases(WORKING_RATE_HZ, self.rate_hz, side_s, cutoff_hz, _ATTENUATION_DB)
        super().__init__(WORKING_RATE_HZ, self.rate_hz, ceil(self.rate_hz * HOP / WORKING_RATE_HZ), phases)

    def flush(self, length: int | None = None) -> Samples:
        """What is left, float32 (m,). With `length`, so much that all outputs together are `length`
        samples.
        """
        if length is None:
            length = -(-self.received * self.rate_hz // WORKING_RATE_HZ)
        return self._flush(length)


class Resampler(_Polyphase):
    """Any whole rate → any other, aligned: output m stands for m / to_hz s of the input.

    It passes up to 83 % of half the lower rate (150 Hz at 360) and stops half of it by 80 dB. Before the
    first and after the last sample their values are held: an ECG has an offset, and its edges must not
    ring. `unit`: outputs come in groups of so many; equal rates pass untouched. N samples become ceil(N *
    to_hz / from_hz).
    """

    def __init__(self, from_hz: int, to_hz: int, *, unit: int = 4) -> None:
        self.from_hz, self.to_hz = from_hz, to_hz
        phases = None
        if from_hz != to_hz:
            stop_hz = min(from_hz, to_hz) / 2
            pass_hz = _PASSED * stop_hz
            # Kaiser 1974: length of a filter by attenuation and width of its transition
            side_s = (_ATTENUATION_DB - 7.95) / (14.36 * (stop_hz - pass_hz)) / 2
            phases = _Phases(from_hz, to_hz, side_s, (pass_hz + stop_hz) / 2, _ATTENUATION_DB)
        super().__init__(from_hz, to_hz, unit, phases, hold=True)

    def flush(self, length: int | None = None) -> Samples:
        """What is left, float32 (m,). With `length`, so much that all outputs together are `length`
        samples.
        """
        return self._flush(-(-self.received * self._out // self._in) if length is None else length)


def resample(x: Samples, from_hz: int, to_hz: int, length: int | None = None) -> Samples:
    """A whole signal, float (n,), at another rate by `Resampler`: float32, `length` samples (default:
    ceil(n * to_hz / from_hz)), sample m at m / to_hz s of the input.
    """
    stage = Resampler(from_hz, to_hz, unit=256)
    first = stage.process(x)
    rest = stage.flush(length)
    return np.concatenate([first, rest])[:length]


def decimate(x: Samples, rate_hz: int) -> Samples:
    """A whole sound, float32 (n,), at 2 kHz: (ceil(n * 2000 / rate_hz),), sample k at k / 2000 s of it."""
    stage = Decimator(rate_hz)
    return np.concatenate([stage.process(x), stage.flush()])


def upsample(x: Samples, rate_hz: int, length: int) -> Samples:
    """Working-rate sound (n,) → exactly `length` samples at `rate_hz`, float32, aligned to the decimator's
    input.

    The way back of `Decimator`: a sound below 750 Hz comes back within -60 dB, edges apart.
    """
    stage = Interpolator(rate_hz)
    first = stage.process(x)
    return np.concatenate([first, stage.flush(length)])[:length]


def response(rate_hz: int) -> tuple[float, float]:
    """(largest deviation in dB from 0 to 800 Hz, highest gain in dB from 1,000 Hz up) of the filter at a
    rate.

    (0.0, -inf) at 2 kHz, where nothing is filtered.
    """
    stage = Decimator(rate_hz)
    if stage._phases is None:
        return 0.0, -inf
    # interleaving the phases gives the prototype again, sampled `count` times finer
    table = stage._phases.table
    fine = table[: len(table) - (not stage._phases.exact)][::-1].T.reshape(-1).astype(np.float64)
    rows = len(fine) // stage.taps
    n = 1 << (max(len(fine), 50 * rows * rate_hz // 100).bit_length() + 1)
    gain = np.abs(np.fft.rfft(fine / rows, n))
    f = np.arange(len(gain)) * rate_hz * rows / n
    floor = 1e-12
    ripple = np.max(np.abs(20 * np.log10(np.maximum(gain[f <= PASS_HZ], floor))))
    stop = np.max(20 * np.log10(np.maximum(gain[f >= STOP_HZ], floor)), initial=-240.0)
    return float(ripple), float(stop)
