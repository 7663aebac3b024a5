"""`python -I -m device` is `stethopi-device`."""

from device.start import main

raise SystemExit(main())
