"""An agent on another machine, as a clone is: ``python -m tests.faults.elsewhere agent …`` tells another boot's id."""

from __future__ import annotations

import uuid

from footlights.agent import facts
from footlights.cli import main

if __name__ == "__main__":
    another = str(uuid.uuid4())
    facts.boot_id = lambda: another  # type: ignore[attr-defined]
    main()
