"""What the ear gets: presets, gain and limiter, the playback queue, outputs, and the watch over feedback."""
