"""`python -m footlights.viewer`."""

from __future__ import annotations

import sys

from footlights.viewer.main import main

if __name__ == "__main__":
    sys.exit(main())
