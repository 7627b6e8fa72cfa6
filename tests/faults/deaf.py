"""Footlights whose wake-ups can be lost: ``python -m tests.faults.deaf server …``.

While the file that ``FOOTLIGHTS_DEAF`` names is there, nobody in the process is woken, as when a notification between
processes is lost: whatever is to happen must come by each loop's own looking.
"""

from __future__ import annotations

import os
from pathlib import Path

from footlights.cli import main
from footlights.control.replication.signals import Changes

VARIABLE = "FOOTLIGHTS_DEAF"


def lose_wakeups(path: Path) -> None:
    heard = Changes.wake

    def wake(self: Changes) -> None:
        if not path.exists():
            heard(self)

    Changes.wake = wake  # type: ignore[method-assign]  # the fault


if __name__ == "__main__":
    lose_wakeups(Path(os.environ[VARIABLE]))
    main()
