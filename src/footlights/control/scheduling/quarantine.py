"""Quarantine: a device that has ended sessions, or that comes and goes, is not placed on for a growing time.

It follows from the device's history, and nothing else is stored. The time counts from when the device was well again;
each reading by the agent in between is a probe, and after it sessions are placed on the device again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from footlights.control.scheduling.views import TimeApart
from footlights.lifecycle import BackoffPolicy, Block, Failure, blocked
from footlights.lifecycle.reasons import DEVICE_HISTORY
from footlights.protocol import times
from footlights.store.nodes import device_history
from footlights.v1 import node_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from footlights.store import Transaction
    from footlights.store.schema import DeviceEventRow

ENDED_SESSIONS = BackoffPolicy(failures=1, window_s=600, first_s=60, longest_s=3600)
CAME_AND_WENT = BackoffPolicy(failures=3, window_s=600, first_s=120, longest_s=3600)
MEMORY = timedelta(hours=24)
INCIDENT_S = 30.0
"""Events of one device within so long are one incident: a lost GPU ends every session on it."""
SHOWN = 20
"""How many events of a device the API shows."""

Key = tuple[str, str]


@dataclass(slots=True)
class _Episode:
    """A time in which the device was not well, by how long ago it began and ended, in seconds."""

    of_launch: bool
    """Whether it ended a session."""
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class QuarantineSpan:
    """Why a device is in quarantine, and for how long from now."""

    reason: str
    """Of the last failure: `GPU_LOST`, `XID_79`."""
    what: str
    failures: int
    left_s: float

    @property
    def text(self) -> str:
        """All of it in one line."""
        return f"{self.reason}: {self.message}; returns in {self.left_s:.0f} s if it stays well"

    @property
    def message(self) -> str:
        """What happened, for a person."""
        return f"{self.what}, {self.failures} times"


def load(tx: Transaction, *, now: datetime) -> dict[Key, TimeApart]:
    """Return (node, device uuid) -> why it is in quarantine and for how long, for those that are."""
    found = {}
    for key, group in groupby(device_history.events(tx, since=now - MEMORY), lambda event: (event.node, event.uuid)):
        if why := explain(list(group), now):
            found[key] = TimeApart(why.text, why.left_s)
    return found


def explain(events: Sequence[DeviceEventRow], now: datetime) -> QuarantineSpan | None:
    """Say why a device with this history, oldest first, is in quarantine now; None where it is not."""
    bad = _episodes(events, now)
    blocks = [
        (_block((each for each in bad if each.of_launch), ENDED_SESSIONS), "ended sessions"),
        (_block((each for each in bad if not each.of_launch), CAME_AND_WENT), "came and went"),
    ]
    found = [(block.left_s, block, what) for block, what in blocks if block is not None]
    if not found:
        return None
    left, block, what = max(found, key=lambda each: each[0])
    reason = next(event.reason for event in reversed(events) if event.reason != device_history.RECOVERED)
    return QuarantineSpan(reason, what, block.failures, left)


def show(tx: Transaction, nodes: Sequence[node_pb2.Node], *, now: datetime) -> None:
    """Add to the devices of node messages their last events, and whether they are in quarantine."""
    known = {
        key: list(group)
        for key, group in groupby(
            device_history.events(tx, nodes=[message.node for message in nodes]), lambda event: (event.node, event.uuid)
        )
    }
    for message in nodes:
        for device in message.devices:
            events = known.get((message.node, device.uuid), [])
            if why := explain([event for event in events if now - event.time <= MEMORY], now):
                device.quarantine = why.text
                device.quarantine_status.CopyFrom(
                    node_pb2.Device.Quarantine(
                        reason=why.reason,
                        message=f"{why.message}; it returns if it stays well.",
                        until_time=times.timestamp(now + timedelta(seconds=why.left_s)),
                    )
                )
            for event in events[-SHOWN:]:
                device.events.add(time=times.timestamp(event.time), reason=event.reason, message=event.message)


def _episodes(events: Sequence[DeviceEventRow], now: datetime) -> list[_Episode]:
    """Turn a history into the times in which the device was not well."""
    closed: list[_Episode] = []
    open_: list[_Episode] = []
    sick = False
    for event in events:
        age = (now - event.time).total_seconds()
        if not sick:
            # Reported by a launch, and no sick reading followed.
            closed += [each for each in open_ if each.began_s - age > INCIDENT_S]
            open_ = [each for each in open_ if each.began_s - age <= INCIDENT_S]
        if event.reason == device_history.RECOVERED:
            for each in open_:
                each.ended_s = age
            closed, open_, sick = closed + open_, [], False
            continue
        of_launch = event.reason in DEVICE_HISTORY
        sick = sick or not of_launch
        open_.append(_Episode(of_launch, age, age))
    if sick:
        for each in open_:
            each.ended_s = 0.0
    return closed + open_


def _block(bad: Iterable[_Episode], policy: BackoffPolicy) -> Block | None:
    return blocked([Failure(each.began_s + INCIDENT_S, each.ended_s) for each in bad], policy)
