"""`python -m kidrails_guard` is `kidrails`."""

from kidrails_guard.cli import main

raise SystemExit(main())
