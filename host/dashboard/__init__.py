"""The page a doctor opens: devices, exams as they arrive, both sounds, the verdict."""
