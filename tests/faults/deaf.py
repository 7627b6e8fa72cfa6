"""Footlights whose signals can be lost: ``python -m tests.faults.deaf server …``.

While the file that ``FOOTLIGHTS_DEAF`` names is there, no subscription in the process hears anything, as when a
notification between processes is lost: whatever is to happen must come by each loop's own looking.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from footlights.cli import main
from footlights.control.signals import Topic

VARIABLE = "FOOTLIGHTS_DEAF"


def lose_signals(path: Path) -> None:
    publish = Topic.publish

    def lossy(self: Topic[Any], *items: Any, **options: Any) -> None:
        if not path.exists():
            publish(self, *items, **options)

    Topic.publish = lossy  # type: ignore[method-assign]  # the fault


if __name__ == "__main__":
    lose_signals(Path(os.environ[VARIABLE]))
    main()
