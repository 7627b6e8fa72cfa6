"""When wishes that wait would be placed: the queue played forward over what is known to end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from footlights.scheduler.index import Index

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from footlights.scheduler.views import DeviceView, NodeView, SlotChoice, Wish

MOST_EVENTS = 2000
"""So many ends are played at the most; what waits for later ones has no forecast."""
MOST_TRIES = 20_000
"""And so often it is tried whether a wish fits: each end may serve any of the groups that wait."""

GroupBack = tuple["Hashable", "str | tuple[str, str]"]
"""A group that is kept away from a node, or from a device of one, no longer."""


class LeaseEnd(NamedTuple):
    """When slots become free, in seconds from now."""

    in_s: float
    node: str
    device: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WaitingWish:
    """A wish that waits."""

    wish: Wish
    group: Hashable
    """Equal where wishes fit on the same."""
    lasts_s: float | None = None
    """How long it will keep its slots; None where that is not known."""


class Forecast:
    """Plays a queue forward: each end frees its slots, and who waits takes what fits, in order."""

    def __init__(self, nodes: Iterable[NodeView], ends: Iterable[LeaseEnd]) -> None:
        """Start now; ``nodes`` are at least those of ``ends``, of which nothing that waits fits on any yet."""
        views = list(nodes)
        self._index = Index(views)
        self._known = {node.name for node in views}
        self._events: list[tuple[float, int, LeaseEnd | GroupBack]] = []
        self._number = self._tries = 0
        for end in ends:
            self._at(end.in_s, end)
        for node in views:
            for device in node.devices:
                if device.quarantine and device.back_s is not None:
                    self._at(device.back_s, LeaseEnd(device.back_s, node.name, device.uuid, ()))

    def play(self, waiting: Sequence[WaitingWish]) -> list[float | None]:
        """Return in how many seconds each is placed, in their order; None where nothing that is known serves it."""
        queues: dict[Hashable, deque[int]] = {}
        wishes: dict[Hashable, Wish] = {}
        for number, each in enumerate(waiting):
            queues.setdefault(each.group, deque()).append(number)
            wishes.setdefault(each.group, each.wish)
        for group, wish in wishes.items():
            for node, left_s in wish.back_s.items():
                self._at(left_s, (group, node))
            for device, left_s in wish.avoid_s.items():
                self._at(left_s, (group, device))
        placed: list[float | None] = [None] * len(waiting)
        for now in self._moments(wishes):
            for number, choice in self._placed(queues, wishes):
                placed[number] = now
                lasts = waiting[number].lasts_s
                if lasts is not None:
                    self._at(now + lasts, LeaseEnd(now + lasts, choice.node, choice.device, choice.slots))
            if not queues:
                break
        return placed

    def _at(self, in_s: float, event: LeaseEnd | GroupBack) -> None:
        self._number += 1
        heappush(self._events, (max(0.0, in_s), self._number, event))

    def _moments(self, wishes: dict[Hashable, Wish]) -> Iterator[float]:
        """Let what is known happen, and stop at each moment at which something did."""
        played = 0
        while self._events and played < MOST_EVENTS and self._tries < MOST_TRIES:
            now = self._events[0][0]
            while self._events and self._events[0][0] <= now:
                event = heappop(self._events)[2]
                played += 1
                if isinstance(event, LeaseEnd):
                    self._end(event)
                else:
                    group, where = event
                    wishes[group] = _back(wishes[group], where)
            yield now

    def _placed(
        self, queues: dict[Hashable, deque[int]], wishes: dict[Hashable, Wish]
    ) -> Iterator[tuple[int, SlotChoice]]:
        heads = [(numbers[0], order, group) for order, (group, numbers) in enumerate(queues.items())]
        heapify(heads)
        while heads:
            number, order, group = heappop(heads)
            self._tries += 1
            choice = self._index.place(wishes[group])
            if choice is None:
                continue
            self._index.confirm(choice)
            numbers = queues[group]
            numbers.popleft()
            if numbers:
                heappush(heads, (numbers[0], order, group))
            else:
                del queues[group]
            yield number, choice

    def _end(self, end: LeaseEnd) -> None:
        if end.node not in self._known:
            return
        before = self._index.view(end.node)
        self._index.release(end.node, end.device, end.slots)
        after = self._index.view(end.node)
        devices = tuple(
            _freed(device, len(known.leased)) if device.uuid == end.device else device
            for device, known in zip(after.devices, before.devices, strict=True)
        )
        if devices != after.devices:
            self._index.set_node(replace(after, devices=devices))


def _freed(device: DeviceView, leased_before: int) -> DeviceView:
    """Return a device of which slots became free, or whose time apart is over: with what those used of it."""
    freed = leased_before - len(device.leased)
    if not freed:
        return replace(device, quarantine="", back_s=None)
    stays = len(device.leased) / leased_before
    free, total = device.memory_free_bytes, device.memory_total_bytes
    if free is not None and total is not None:
        free = total - round((total - free) * stays)
    return replace(
        device,
        memory_free_bytes=free,
        memory_used_bytes=_part(device.memory_used_bytes, stays),
        encoder_sessions=_part(device.encoder_sessions, stays),
        encoder_capacity_percent=None,
    )


def _part(measured: int | None, stays: float) -> int | None:
    return None if measured is None else round(measured * stays)


def _back(wish: Wish, node: str | tuple[str, str]) -> Wish:
    if not isinstance(node, str):
        return replace(wish, avoid={where: why for where, why in wish.avoid.items() if where != node})
    crashes, unwell = (
        {name: why for name, why in each.items() if name != node} for each in (wish.crashes, wish.unwell)
    )
    return replace(wish, crashes=crashes, unwell=unwell)
