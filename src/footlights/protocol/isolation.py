"""How far a launcher separates an application from everything else on its node."""

from __future__ import annotations

from enum import IntEnum


class Isolation(IntEnum):
    """The levels, with the numbers of ``Needs.Isolation``: each gives what the lower ones do."""

    NONE = 1
    """Nothing: the application runs as the agent's user, and reaches what that user reaches."""
    PROCESS = 2
    """A user, files, processes and network of its own, on the node's system."""
    CONTAINER = 3
    """The same, on the system of an image."""
