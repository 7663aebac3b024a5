"""What runs beside the doctor or the researcher: command line, ingest, store, dashboard, demo."""
