"""`python -m device` is `stethopi-device`."""

from device.cli import main

raise SystemExit(main())
