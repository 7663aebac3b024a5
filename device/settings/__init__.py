"""What a person may set: one TOML file, its sections, and words that name a source."""
