"""Footlights with a bug planted: ``python -m tests.faults.planted agent …`` takes any process with the pid for its own.

The checker must find what this breaks; see ``test_faults``.
"""

from __future__ import annotations

from footlights.cli import main
from footlights.linux.procfs import Identity, read_stat


def alive_by_pid_alone(self: Identity) -> bool:
    stat = read_stat(self.pid)
    return stat is not None and not stat.dead


if __name__ == "__main__":
    Identity.alive = alive_by_pid_alone  # type: ignore[method-assign]  # the planted bug
    main()
