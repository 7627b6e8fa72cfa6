"""What is left of a device beside what its sessions were promised: servers place by it, and agents check it."""

from __future__ import annotations


def memory_left(free: int | None, total: int | None, *, kept: int, used: int | None) -> int | None:
    """Return how much of a device's memory another session may have; None where that cannot be known.

    Args:
        free: What nothing has now; None where the driver does not say.
        total: All that there is, where that is known.
        kept: What sessions on the device were promised, whether they use it already or not.
        used: How much of that they use, of each at most what it was promised; None where that is not known.
    """
    if not kept:
        return free
    if used is not None and free is not None:
        return max(0, free - max(0, kept - used))
    known = [size for size in (free, None if total is None else total - kept) if size is not None]
    return max(0, min(known)) if known else None


def encoder_full(running: int | None, *, promised: int, limit: int | None, capacity: int | None) -> str:
    """Say why no other session may encode on a device; empty where one may, or nothing is known.

    Args:
        running: How many streams are encoded on it; None where the driver does not say.
        promised: How many of the sessions on it encode, or will.
        limit: How many an operator allows.
        capacity: What the driver says is left, in percent. It also says 0 of an encoder that it knows nothing of.
    """
    taken = max(running or 0, promised)
    if limit is not None and taken >= limit:
        return f"{taken} of {limit} encoder sessions are in use or promised"
    if running and capacity == 0:
        return f"the driver says that the video encoder has nothing left beside {running} sessions"
    return ""
