"""What this machine can do, and what it costs: doctor, sound check, bench, instruction count."""
