"""Fleets and queues to place: made by hand for tables, drawn for properties."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from footlights.protocol.isolation import Isolation
from footlights.scheduler import DeviceView, NodeView, Share, Wish

GIB = 1 << 30
NONE, PROCESS, CONTAINER = Isolation


def device(uuid: str = "GPU-0", **members: Any) -> DeviceView:
    """A whole, well, free GPU of 16 GiB, except where said otherwise."""
    known: dict[str, Any] = {
        "name": "NVIDIA L40S",
        "kind": "GPU",
        "slots": 1,
        "memory_total_bytes": 16 * GIB,
        "memory_free_bytes": 16 * GIB,
    }
    return DeviceView(uuid, **(known | members))


def node(name: str = "node-a", *devices: DeviceView, **members: Any) -> NodeView:
    """A connected node with these devices."""
    return NodeView(name, devices, **members)


def wish(session_id: str = "s", **members: Any) -> Wish:
    """A wish for one slot of anything."""
    return Wish(session_id, **({"launcher": "process"} | members))


APPLICATIONS = ("usd-viewer", "usd-composer")
MEMORY = (4 * GIB, 10 * GIB, 10 * GIB + 1, 16 * GIB)
T = TypeVar("T")


def mostly(usual: T, *others: T) -> st.SearchStrategy[T]:
    """The usual in two of three draws: what differs in everything fits nowhere."""
    return st.sampled_from([usual] * 2 * len(others) + list(others))


@st.composite
def devices(draw: st.DrawFn, uuid: str) -> DeviceView:
    """A device that may lack, miss or refuse anything, but mostly is well."""
    slots = draw(st.integers(1, 4))
    total = draw(st.none() | st.sampled_from([8, 16, 48]).map(lambda size: size * GIB))
    leased = draw(st.frozensets(st.integers(0, slots - 1), max_size=2))
    shares = st.builds(Share, mostly(0, *MEMORY), st.booleans())
    return DeviceView(
        uuid,
        draw(st.sampled_from(["NVIDIA L40S", "NVIDIA H100", "Software renderer"])),
        draw(st.sampled_from(["GPU", "GPU", "MIG", "SOFTWARE"])),
        slots,
        leased=leased,
        shares={slot: draw(shares) for slot in sorted(leased) if draw(st.booleans())},
        memory_used_bytes=draw(mostly(None, 0, *MEMORY)),
        encoder_sessions=draw(mostly(None, 0, 2)),
        encoder_capacity_percent=draw(mostly(None, 0, 60)),
        encoder_session_limit=draw(mostly(None, 1, 2, 3)),
        memory_total_bytes=total,
        memory_free_bytes=None if total is None else draw(st.sampled_from([0, *MEMORY, total])),
        graphics=draw(mostly(True, False)),
        encoder=draw(mostly(True, False)),
        usable=draw(mostly(True, False)),
        health_reason=draw(st.sampled_from(["", "XID_79: fell off"])),
        foreign=draw(mostly("", "3.1 GiB pid 7 python")),
        quarantine=draw(mostly("", "failed 3 times")),
    )


@st.composite
def nodes(draw: st.DrawFn, name: str) -> NodeView:
    """A node of up to three devices, that mostly may be used."""
    return NodeView(
        name,
        tuple(draw(devices(f"GPU-{name}-{index}")) for index in range(draw(st.integers(0, 3)))),
        connected=draw(mostly(True, False)),
        cordoned=draw(mostly(False, True)),
        draining=draw(mostly(False, True)),
        launchers=draw(mostly({"process": NONE, "fake": CONTAINER}, {"process": CONTAINER}, {"process": PROCESS}, {})),
        labels=draw(st.dictionaries(st.just("zone"), st.sampled_from("ab"), max_size=1)),
        port_blocks=draw(st.integers(0, 6)),
        launches=draw(st.integers(0, 4)),
        warm=draw(st.frozensets(st.tuples(st.sampled_from(APPLICATIONS), st.just("1.0.0")), max_size=2)),
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeView]:
    """Up to four nodes."""
    return [draw(nodes(f"node-{number}")) for number in range(draw(st.integers(0, 4)))]


@st.composite
def wishes(draw: st.DrawFn, session_id: str) -> Wish:
    """A wish that may want, avoid or have broken anything."""
    names = st.sampled_from(["node-0", "node-1"])
    places = st.tuples(names, st.sampled_from(["GPU-node-0-0", "GPU-node-1-0", "GPU-node-1-1", ""]))
    return Wish(
        session_id,
        draw(mostly("process", "fake")),
        isolation=draw(mostly(NONE, PROCESS, CONTAINER, 4)),
        slots=draw(mostly(1, 2, 3)),
        min_memory_bytes=draw(mostly(0, *MEMORY)),
        gpu=draw(st.booleans()),
        graphics=draw(mostly(False, True)),
        encoder=draw(mostly(False, True)),
        device_names=draw(mostly((), ("NVIDIA*",), ("*H100", "*L40S"))),
        node_labels=draw(mostly({}, {"zone": "a"})),
        avoid=draw(st.just({}) | st.dictionaries(places, st.sampled_from(["FOREIGN_PROCESS", ""]), max_size=2)),
        crashes=draw(mostly({}, *({name: "failed 3 times"} for name in ("node-0", "node-1", "")))),
        unwell=draw(mostly({}, *({name: "failed" if name else ""} for name in ("node-0", "node-1", "")))),
        doubted=draw(st.frozensets(names, max_size=2)),
        application=draw(st.sampled_from(["", *APPLICATIONS])),
        application_version="1.0.0",
    )


@st.composite
def queues(draw: st.DrawFn) -> list[Wish]:
    """Up to ten wishes."""
    return [draw(wishes(f"s{number}")) for number in range(draw(st.integers(0, 10)))]
