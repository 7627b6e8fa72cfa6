"""Fleets and wishes as an installation has them, drawn from a seed: four models, and applications of all sizes."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from footlights.scheduler import DeviceView, NodeView, Wish

GIB = 1 << 30
APPLICATIONS = 200
DEVICES = 8
MODELS = (("NVIDIA L4", 24, 1, 4), ("NVIDIA A40", 48, 1, 2), ("NVIDIA L40S", 48, 2, 3), ("NVIDIA H100", 80, 4, 1))
"""Name, GiB, slots, and how frequent it is."""
_SHARES = [1 / (number + 1) ** 0.7 for number in range(APPLICATIONS)]
"""How much each application is used, and on how many nodes it has been: a few are on most, most on a few."""


def nodes(random: Random, count: int) -> list[NodeView]:
    """So many nodes of eight GPUs of one model, all free, each warm for some applications."""
    found = []
    for number in range(count):
        model, gib, slots, _ = random.choices(MODELS, [share for *_, share in MODELS])[0]
        devices = tuple(
            DeviceView(
                f"GPU-{number:05}-{index}",
                model,
                "GPU",
                slots,
                memory_total_bytes=gib * GIB,
                memory_free_bytes=gib * GIB - random.randrange(GIB // 2),
            )
            for index in range(DEVICES)
        )
        warm = frozenset(
            (_name(application), "1.0.0") for application, share in enumerate(_SHARES) if random.random() < 0.25 * share
        )
        found.append(NodeView(f"node-{number:05}", devices, warm=warm))
    return found


class Wishes(Iterator[Wish]):
    """Wishes without end, each for one of the applications, as often as it is used."""

    def __init__(self, random: Random) -> None:
        """Decide what each application needs."""
        self._random = random
        self._made = 0
        self._needs: list[dict[str, Any]] = [
            {
                "application": _name(application),
                "application_version": "1.0.0",
                "gpu": True,
                "graphics": random.random() < 0.7,
                "min_memory_bytes": random.choices([0, 8, 16, 40, 70], [2, 4, 4, 2, 1])[0] * GIB,
                "slots": random.choices([1, 2], [9, 1])[0],
            }
            for application in range(APPLICATIONS)
        ]
        self._totals = [sum(_SHARES[: number + 1]) for number in range(APPLICATIONS)]

    def __next__(self) -> Wish:
        """Return the next one."""
        self._made += 1
        needs = self._random.choices(self._needs, cum_weights=self._totals)[0]
        return Wish(f"s{self._made}", "process", **needs)


def _name(application: int) -> str:
    return f"application-{application}"
