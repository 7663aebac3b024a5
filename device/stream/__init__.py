"""Sound by absolute sample index: the ring and its intake, the aligned clean twin, the waveform, the chain of
all of them, and what is left out when late.
"""
