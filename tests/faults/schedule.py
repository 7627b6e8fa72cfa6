"""Which fault comes when: drawn from the seed alone, so that a run can be had again."""

from __future__ import annotations

import random
from dataclasses import dataclass

SHARES = {
    "kill_server": 7,
    "stop_server": 4,
    "kill_agent": 14,
    "stop_agent": 7,
    "restart_agent": 4,
    "kill_shim": 8,
    "stop_shim": 4,
    "kill_application": 10,
    "stop_application": 4,
    "cut_link": 8,
    "half_open_link": 5,
    "slow_link": 5,
    "vanish_clients": 6,
    "vanish_at_each_point": 2,
    "drop_wakeups": 4,
    "rival_writer": 4,
    "duplicate_agent": 2,
    "clone_agent": 2,
    "lose_gpu": 4,
    "xid": 2,
    "fill_store": 3,
    "fill_journal": 4,
    "fail_store": 3,
    "fail_journal": 3,
    "jump_clock": 4,
    "reuse_pid": 2,
    "lose_journal": 2,
}
"""Kind -> how often, of all."""


@dataclass(frozen=True, slots=True)
class Due:
    """One fault to come."""

    at: float
    """Seconds from the start."""
    kind: str
    seed: str
    """For whatever else is drawn when its time comes: which node, which process, how long."""


def draw(seed: int, seconds: float, *, every_s: float = 1.1, kinds: tuple[str, ...] = tuple(SHARES)) -> tuple[Due, ...]:
    """Draw the faults of a run, in order of time."""
    chance = random.Random(f"{seed}/schedule")
    weights = [SHARES[kind] for kind in kinds]
    at = 1.0
    found: list[Due] = []
    while at < seconds:
        found.append(Due(at, chance.choices(kinds, weights=weights)[0], f"{seed}/{len(found)}"))
        at += chance.uniform(0.3, 1.7) * every_s
    return tuple(found)
