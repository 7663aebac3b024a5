"""Exams on their way to the host: the MQTT link, and the uplink that waits for receipts."""
