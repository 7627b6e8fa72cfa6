"""``python -m footlights.gateway``."""

from footlights.gateway.command import main

raise SystemExit(main())
