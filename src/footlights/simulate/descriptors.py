"""The limit on open files, which is a limit on connections."""

from __future__ import annotations

import resource

from footlights.errors import FailedPrecondition


def ensure(count: int) -> None:
    """Raise this process's soft limit to at least ``count`` open files. Raises FailedPrecondition."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count or soft == resource.RLIM_INFINITY:
        return
    if hard not in (resource.RLIM_INFINITY,) and hard < count:
        raise FailedPrecondition(
            f"{count} open files are needed, and this user may have {hard}. Raise it (ulimit -Hn), or ask for less.",
            reason="OPEN_FILES",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
