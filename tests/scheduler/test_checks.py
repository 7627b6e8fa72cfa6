"""Why a node or device is refused (`checks`, `explanation`): every reason once, with its figures."""

from __future__ import annotations

import pytest

from footlights.scheduler import DeviceView, NodeView, Share, Verdict, Wish, device_refusal, node_refusal
from tests.scheduler.exhaustive import reasons
from tests.scheduler.fleets import CONTAINER, GIB, PROCESS, device, node, wish


@pytest.mark.parametrize(
    ("wanted", "offered", "reason", "says"),
    [
        (wish(), node("n", device(), connected=False), "UNREACHABLE", "not connected"),
        (wish(), node("n", device(), draining=True, cordoned=True), "DRAINING", "drained"),
        (wish(), node("n", device(), cordoned=True), "CORDONED", "cordoned"),
        (wish(), node("n", device(), accepted=False), "NOT_ACCEPTED", "no operator has accepted it yet"),
        (wish(launcher="container"), node("n", device()), "NO_LAUNCHER", "container launcher; the node offers process"),
        (wish(), node("n", device(), launchers={}), "NO_LAUNCHER", "offers none"),
        (wish(isolation=PROCESS), node("n", device()), "ISOLATION", "needs the isolation PROCESS"),
        (wish(isolation=4), node("n", device(), launchers={"process": CONTAINER}), "ISOLATION", "gives CONTAINER"),
        (wish(node_labels={"zone": "a"}), node("n", device(), labels={"zone": "b"}), "LABEL", "zone=a"),
        (wish(node_labels={"zone": "a"}), node("n", device()), "LABEL", "none"),
        (wish(), node("n", device(), port_blocks=3, launches=3), "NO_PORTS", "all 3"),
        (wish(), node("n"), "NO_DEVICE", "no device"),
    ],
)
def test_a_node_is_refused_for_its_own_reason(wanted: Wish, offered: NodeView, reason: str, says: str) -> None:
    """Each reason is a stable word, with a sentence that has the figures."""
    refusal = node_refusal(wanted, offered)

    assert refusal is not None
    assert refusal.reason == reason
    assert says in refusal.message


@pytest.mark.parametrize(
    ("wanted", "offered", "reason", "says"),
    [
        (wish(), device(usable=False, health_reason="XID_79: fell off the bus"), "XID_79", "fell off the bus"),
        (wish(), device(usable=False), "UNHEALTHY", "unhealthy"),
        (wish(gpu=True), device(kind="SOFTWARE"), "NO_GPU", "software device"),
        (wish(graphics=True), device(graphics=False), "NO_GRAPHICS", "can draw"),
        (wish(encoder=True), device(encoder=False), "NO_ENCODER", "encoder"),
        (wish(device_names=("*H100*", "*A40")), device(), "DEVICE_NAME", "*H100* or *A40; this is NVIDIA L40S"),
        (wish(slots=3), device(slots=2), "SLOTS", "needs 3 slots; the device has 2"),
        (wish(slots=2), device(slots=2, leased=frozenset({1})), "NO_SLOT", "1 of 2"),
        (wish(), device(foreign="3.1 GiB pid 4711 python"), "FOREIGN_PROCESS", "3.1 GiB pid 4711 python"),
        (wish(min_memory_bytes=16 * GIB), device(memory_free_bytes=11 * GIB), "MEMORY", "11.0<16.0 GiB"),
        (
            wish(min_memory_bytes=10 * GIB),
            device(slots=2, leased=frozenset({0}), shares={0: Share(10 * GIB)}, memory_used_bytes=0),
            "MEMORY",
            "6.0<10.0 GiB free, 10.0 GiB are kept for sessions",
        ),
        (
            wish(encoder=True),
            device(slots=3, leased=frozenset({0, 1}), shares={0: Share(encoder=True)}, encoder_session_limit=1),
            "ENCODER_FULL",
            "1 of 1",
        ),
        (
            wish(encoder=True),
            device(encoder_sessions=3, encoder_capacity_percent=0),
            "ENCODER_FULL",
            "nothing left beside 3",
        ),
        (wish(avoid={("n", "GPU-0"): "WRONG_DEVICE"}), device(), "REFUSED", "WRONG_DEVICE"),
    ],
)
def test_a_device_is_refused_for_its_own_reason(wanted: Wish, offered: DeviceView, reason: str, says: str) -> None:
    """Each reason is a stable word, with a sentence that has the figures."""
    refusal = device_refusal(wanted, node("n", offered), offered)

    assert refusal is not None
    assert refusal.reason == reason
    assert says in refusal.message


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        (wish(), device()),
        (wish(gpu=True), device(kind="MIG")),
        (wish(), device(kind="SOFTWARE")),
        (wish(device_names=("NVIDIA L*",)), device()),
        (wish(slots=2), device(slots=4, leased=frozenset({0, 2}))),
        (wish(min_memory_bytes=16 * GIB), device()),
        (wish(min_memory_bytes=16 * GIB), device(memory_free_bytes=None, memory_total_bytes=None)),
        (wish(avoid={("n", "GPU-1"): "x", ("m", "GPU-0"): "x"}), device()),
        (wish(node_labels={"zone": "a"}), device()),
    ],
)
def test_what_meets_the_wish_is_not_refused(wanted: Wish, offered: DeviceView) -> None:
    """Bounds are met at equality; no memory of its own passes; a refusal elsewhere is none here."""
    home = node("n", offered, labels={"zone": "a"})

    assert node_refusal(wanted, home) is None
    assert device_refusal(wanted, home, offered) is None


def test_reasons_are_counted_over_the_fleet_most_frequent_first() -> None:
    """A waiting session's owner reads what is short, not a list of machines."""
    taken = frozenset({0})
    fleet = [
        node("a", device("1", leased=taken), device("2", leased=taken), device("3", foreign="x")),
        node("b", device("4", leased=taken), cordoned=True),
        node("c", device("5", leased=taken)),
    ]

    assert [why.text for why in reasons(wish(), fleet)] == [
        "NO_SLOT: 3 devices",
        "CORDONED: 1 node",
        "FOREIGN_PROCESS: 1 device",
    ]
    assert reasons(wish(), fleet)[0].message == "3 devices: all slots are leased"
    assert [why.text for why in reasons(wish(), [])] == ["NO_NODE: no node has joined"]


def test_a_refusal_is_a_value() -> None:
    """Two equal refusals are equal, so that explanations can be compared."""
    assert Verdict("A", "b") == Verdict("A", "b")
