"""One GPU under several names: it is given to sessions once, and both names say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from footlights.v1 import node_pb2

from footlights.control.scheduling.shared_devices import SharedDevices
from footlights.scheduler import DeviceView, NodeView
from tests.control.harness import Control, State, gpu

BORN = datetime(2026, 1, 1, tzinfo=UTC)


async def notices(plane: Control, node: str) -> list[str]:
    found: node_pb2.Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node=node))
    return [notice.message for notice in found.notices if notice.reason == "SHARED_DEVICE"]


async def test_one_gpu_of_two_nodes_is_given_once(plane: Control) -> None:
    """A host's agent and one in a container report the same GPU: of two sessions one waits, and both nodes say why."""
    host = await plane.agent("b-host", gpu("GPU-0"))
    plane.clock.pass_s(1)
    await plane.agent("a-container", gpu("GPU-0"), gpu("GPU-1"))
    first, second, third = [await plane.create() for _ in range(3)]
    await plane.place()

    placed = [await plane.get(each.session_id) for each in (first, second, third)]
    assert [each.state for each in placed].count(State.PENDING) == 1
    taken = {(each.node, each.device) for each in placed if each.node}
    assert taken == {("b-host", "GPU-0"), ("a-container", "GPU-1")}
    [waiting] = [each for each in placed if each.state == State.PENDING]
    assert "SHARED_DEVICE: 1 device" in waiting.queue.reasons
    [here], [there] = await notices(plane, "b-host"), await notices(plane, "a-container")
    assert "also reported by node a-container: sessions get it on node b-host only" in here
    assert "also reported by node b-host: sessions get it on node b-host only" in there

    [on_host] = [each for each in placed if each.node == "b-host"]
    await host.report(await host.assignment(on_host.session_id), "EXITED", exit_code=0)
    await plane.place()
    assert (await plane.get(waiting.session_id)).node == "b-host"


async def test_who_has_sessions_keeps_it_and_a_node_that_goes_leaves_it(plane: Control) -> None:
    """The older name gives it; while that takes no sessions the other does, and keeps it while it is used there."""
    await plane.agent("old", gpu("GPU-0", slots=2))
    plane.clock.pass_s(1)
    await plane.agent("new", gpu("GPU-0", slots=2))
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="old"))
    first = await plane.create()
    await plane.place()
    assert (await plane.get(first.session_id)).node == "new"

    await plane.call("NodeService.UncordonNode", node_pb2.UncordonNodeRequest(node="old"))
    second, third = await plane.create(), await plane.create()
    await plane.place()
    assert (await plane.get(second.session_id)).node == "new"
    assert (await plane.get(third.session_id)).state == State.PENDING


def view(name: str, *devices: DeviceView, connected: bool = True) -> NodeView:
    return NodeView(name, devices, connected=connected)


def board(uuid: str, parent: str = "", kind: str = "GPU") -> DeviceView:
    return DeviceView(uuid, "NVIDIA H200", "MIG" if parent else kind, 1, parent=parent)


def given(shared: SharedDevices, *views: NodeView) -> list[tuple[str, str]]:
    """Which devices are given, and where."""
    return [(each.name, device.uuid) for each in views for device in shared.barred(each).devices if device.usable]


def test_a_gpu_and_its_parts_are_one() -> None:
    """Whole under one name and cut up under another: one of the two. Parts under different names are different."""
    shared = SharedDevices(lambda *_: False)
    whole, parts = view("whole", board("GPU-0")), view("parts", board("MIG-1", "GPU-0"), board("MIG-2", "GPU-0"))
    other = view("other", board("MIG-3", "GPU-0"))
    assert shared.set_node(parts, BORN) == set()
    assert shared.set_node(other, BORN + timedelta(1)) == set()
    assert shared.set_node(whole, BORN + timedelta(2)) == {"parts", "other"}
    assert given(shared, whole, parts, other) == [("parts", "MIG-1"), ("parts", "MIG-2"), ("other", "MIG-3")]
    assert [text.partition(":")[0] for _, text in shared.notices(["whole"])] == [
        "GPU GPU-0 is also reported by node other, parts"
    ]
    assert shared.remove_node("parts") == {"whole"}
    assert shared.remove_node("other") == {"whole"}
    assert given(shared, whole) == [("whole", "GPU-0")]
    assert list(shared.notices(["whole"])) == []


def test_renderers_are_everybodys() -> None:
    """A renderer on the CPU is no GPU, whatever it is called."""
    shared = SharedDevices(lambda *_: False)
    nodes = [view(name, board("SOFT-0", kind="SOFTWARE")) for name in ("a", "b")]
    for each in nodes:
        assert shared.set_node(each, BORN) == set()
    assert len(given(shared, *nodes)) == 2


def test_a_node_that_is_read_again_is_counted_once() -> None:
    """Whatever it reports now replaces what it did."""
    shared = SharedDevices(lambda *_: False)
    first, second = view("first", board("GPU-0")), view("second", board("GPU-0"))
    shared.set_node(first, BORN)
    assert shared.set_node(second, BORN + timedelta(1)) == {"first"}
    assert given(shared, first, second) == [("first", "GPU-0")]
    away = view("first", board("GPU-0"), connected=False)
    assert shared.set_node(away, BORN) == {"second"}
    assert given(shared, second) == [("second", "GPU-0")]
    moved = view("first", board("GPU-7"))
    assert shared.set_node(moved, BORN) == {"second"}
    assert given(shared, moved, second) == [("first", "GPU-7"), ("second", "GPU-0")]
