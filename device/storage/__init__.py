"""What outlives a power cut: the recorder and the outbox."""
