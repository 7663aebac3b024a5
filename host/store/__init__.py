"""Exams at rest: tables, the database, arrivals, and the clocks of devices."""
