"""What runs in the emulated machine: each stage of the device over some seconds of sound, with a mark before
and after it for the plug-in that counts (count.c). What it says on its last line are the marks' names.
"""

from __future__ import annotations

import os
import sys

START = ("start", "first sample")
SECONDS = 2


def main() -> None:
    os.getpgid(0)  # Python itself has started
    import numpy as np

    from device.denoise.stream import Denoiser
    from device.dsp.resample import Decimator
    from device.inference import bundle as bundles
    from device.rates import WORKING_RATE_HZ

    found = bundles.load()
    denoiser, decimator = Denoiser(found.model("denoiser")), Decimator(48000)
    denoiser.process(decimator.process(np.zeros(48000 // 50, dtype=np.float32)))
    os.getpgid(0)  # the first sample is heard

    import json
    import tempfile
    from pathlib import Path

    from device.checks.instruction_count import stages_of
    from device.contract.codec import encode
    from device.listening.shaper import Shaper
    from device.rates import HOP
    from device.screening.features import ScreeningFrames
    from device.settings.specs import HeartSettings
    from device.sources.synthetic import synthesise
    from device.storage.recorder import Recorder
    from device.stream.ring import Ring
    from device.stream.waveform import Display

    heart = HeartSettings(murmur="systolic", noise_db=10.0, rate_hz=WORKING_RATE_HZ)
    x = synthesise(heart, 5 + SECONDS).samples
    source = x.repeat(48000 // WORKING_RATE_HZ)
    names: list[str] = []

    def count(name: str, work: object, *, warm_s: int = 1, blocks: int = 50) -> None:
        """work takes a block of sound, `blocks` in a second, and the same at the source's rate."""
        assert callable(work)
        size, source_size = WORKING_RATE_HZ // blocks, 48000 // blocks
        for n in range((warm_s + SECONDS) * blocks):
            if n == warm_s * blocks:
                os.getpgid(0)
            work(x[n * size : (n + 1) * size], source[n * source_size : (n + 1) * source_size])
        os.getpgid(0)
        names.append(name)

    shaper, ring, display, frames = Shaper(preset="bell"), Ring(10.0), Display(), ScreeningFrames()
    count("nothing", lambda x, source: None)
    count("decimate", lambda x, source: decimator.process(source))
    count("denoise", lambda x, source: denoiser.process(x))
    count("listen", lambda x, source: shaper.process(x))
    count("ring", lambda x, source: ring.append(x))
    count("waveform", lambda x, source: [encode(one) for one in display.process(x, x)])
    count("mel", lambda x, source: frames.process(x))
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder), "sound") as recorder:
        count("record", lambda x, source: recorder.append(x))
        recorder.discard()
    for name, work in stages_of():
        if name in ("classify", "rhythm", "quality"):
            count(name, lambda x, source, work=work: work(source, x), warm_s=5, blocks=1)

    # a step by its parts, with as many hops at once as a block of 20 ms brings: two, and three
    front_end, mask, net = denoiser._front_end, denoiser._mask, denoiser._net
    answers = denoiser._answers
    hops = x[:80].reshape(-1, HOP)[:5]

    def in_two(work: object) -> object:
        assert callable(work)

        def both(x: object, source: object) -> None:
            work(hops[:2]), work(hops[2:])

        return both

    def turn(hops: object) -> None:
        for state, new in denoiser._turn:
            state[:] = new

    removed = {k: {name: answer[:k] for name, answer in answers.items()} for k in (2, 3)}
    count("step: front end", in_two(front_end.steps), blocks=25)
    count("step: network", lambda x, source: net.invoke(), blocks=125)
    count("step: states", lambda x, source: turn(x), blocks=125)
    count("step: mask", in_two(lambda hops: mask.steps(hops, front_end, removed[len(hops)])), blocks=25)
    print(json.dumps(names))


if __name__ == "__main__":
    main()
    sys.exit(0)
