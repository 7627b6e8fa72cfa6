"""Fleets and queues to place: made by hand for tables, drawn for properties."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from footlights.scheduler import DeviceView, NodeView, Wish

GIB = 1 << 30


def device(uuid: str = "GPU-0", **members: Any) -> DeviceView:
    """A whole, well, free GPU of 16 GiB, but for what is said."""
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


@st.composite
def _devices(draw: st.DrawFn, uuid: str) -> DeviceView:
    slots = draw(st.integers(1, 4))
    total = draw(st.none() | st.sampled_from([8, 16, 48]).map(lambda size: size * GIB))
    return DeviceView(
        uuid,
        draw(st.sampled_from(["NVIDIA L40S", "NVIDIA H100", "Software renderer"])),
        draw(st.sampled_from(["GPU", "MIG", "SOFTWARE"])),
        slots,
        leased=draw(st.frozensets(st.integers(0, slots - 1))),
        memory_total_bytes=total,
        memory_free_bytes=None if total is None else draw(st.integers(0, total)),
        graphics=draw(st.booleans()),
        encoder=draw(st.booleans()),
        usable=draw(st.sampled_from([True, True, True, False])),
        health_reason=draw(st.sampled_from(["", "XID_79: fell off"])),
        foreign=draw(st.sampled_from(["", "", "", "3.1 GiB pid 7 python"])),
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeView]:
    """Up to four nodes of up to three devices each."""
    return [
        NodeView(
            f"node-{number}",
            tuple(draw(_devices(f"GPU-{number}-{index}")) for index in range(draw(st.integers(0, 3)))),
            connected=draw(st.sampled_from([True, True, True, False])),
            cordoned=draw(st.sampled_from([False, False, False, True])),
            draining=draw(st.sampled_from([False, False, False, True])),
            launchers=draw(st.sampled_from([frozenset({"process"}), frozenset({"process", "fake"}), frozenset()])),
            labels=draw(st.dictionaries(st.just("zone"), st.sampled_from("ab"), max_size=1)),
            port_blocks=draw(st.integers(0, 6)),
            launches=draw(st.integers(0, 4)),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def queues(draw: st.DrawFn) -> list[Wish]:
    """Up to ten wishes."""
    places = st.tuples(st.sampled_from(["node-0", "node-1"]), st.sampled_from(["GPU-0-0", "GPU-1-0", "GPU-1-1"]))
    return [
        Wish(
            f"s{number}",
            draw(st.sampled_from(["process", "process", "fake"])),
            slots=draw(st.integers(1, 3)),
            min_memory_bytes=draw(st.sampled_from([0, 0, 4 * GIB, 16 * GIB])),
            gpu=draw(st.booleans()),
            graphics=draw(st.booleans()),
            encoder=draw(st.booleans()),
            device_names=draw(st.sampled_from([(), (), ("NVIDIA*",), ("*H100", "*L40S")])),
            node_labels=draw(st.sampled_from([{}, {}, {"zone": "a"}])),
            avoid=draw(st.dictionaries(places, st.just("FOREIGN_PROCESS"), max_size=2)),
        )
        for number in range(draw(st.integers(0, 10)))
    ]
