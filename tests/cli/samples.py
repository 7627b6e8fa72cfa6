"""Messages that the tests show."""

from __future__ import annotations

from typing import Any

from footlights.v1 import node_pb2, session_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

NOW_S = 1_767_312_000
"""2026-01-02T00:00:00Z."""

S = session_pb2.Session


def at(seconds_ago: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(int((NOW_S - seconds_ago) * 1e9))
    return timestamp


def session(state: S.State.ValueType = S.READY, session_id: str = "s-1", revision: int = 1, **members: Any) -> S:
    given: dict[str, Any] = {
        "application": "usd-viewer",
        "application_version": "1.0.0",
        "username": "ada",
        "created_time": at(190),
        "condition": S.OK,
        "node": "gpu-1" if state not in (S.PENDING,) else "",
        "device_name": "NVIDIA L40" if state not in (S.PENDING,) else "",
    }
    return S(session_id=session_id, state=state, revision=revision, **{**given, **members})


def pending(session_id: str = "s-2", revision: int = 1) -> S:
    queue = S.Queue(position=3, eta=Duration(seconds=40), reasons=["NO_SLOT: 2 devices"])
    return session(S.PENDING, session_id, revision, queue=queue)


def milestones(*steps: tuple[S.Milestone.Stage.ValueType, float]) -> list[S.Milestone]:
    return [S.Milestone(stage=stage, time=at(190 - after)) for stage, after in steps]


def node(**members: Any) -> node_pb2.Node:
    device = node_pb2.Device(
        uuid="GPU-1",
        kind=node_pb2.Device.GPU,
        name="NVIDIA L40",
        memory_total_bytes=48 << 30,
        memory_free_bytes=40 << 30,
        utilization_percent=12,
        slots=2,
        slots_leased=1,
        health=node_pb2.Device.OK,
    )
    facts = node_pb2.NodeFacts(hostname="gpu-1", os="Debian 12", agent_version="0.1.0", driver_version="580.1")
    given: dict[str, Any] = {
        "state": node_pb2.Node.READY,
        "facts": facts,
        "devices": [device],
        "last_seen_time": at(2),
        "session_count": 1,
    }
    return node_pb2.Node(node="gpu-1", **{**given, **members})
