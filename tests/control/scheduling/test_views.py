"""What sessions on a device leave of it to the next one: memory and encoder sessions, as they are promised and used."""

from __future__ import annotations

from footlights.v1 import application_pb2, node_pb2, session_pb2

from tests.control.harness import GIB, Agent, Control, State, gpu, inventory, version

Needs = application_pb2.Needs


async def waits_for(plane: Control, session: session_pb2.Session) -> list[str]:
    """The reasons for which a session waits."""
    return list((await plane.get(session.session_id)).queue.reasons)


async def shown(plane: Control) -> node_pb2.Device:
    """The only device of the only node, as the API shows it."""
    node: node_pb2.Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
    return node.devices[0]


async def says(agent: Agent, **members: object) -> None:
    """The agent reads its device again."""
    await agent.say(inventory=inventory(board(**members)))
    await agent.settled()


def board(**members: object) -> node_pb2.Device:
    size = {"memory_total_bytes": 48 * GIB, "memory_free_bytes": 48 * GIB, "slots": 4}
    return gpu("GPU-0", **(size | members))


async def test_memory_is_kept_for_a_session_before_it_uses_it(plane: Control) -> None:
    """Two sessions of 30 GiB are not begun at once on 48, used or not; one of 16 is; the second goes on when the first
    has ended."""
    await plane.apply(version("2.0.0", needs=Needs(min_memory_bytes=30 * GIB)))
    agent = await plane.agent("node-a", board())
    first, second = await plane.create(), await plane.create()
    await plane.place()

    assert (await plane.get(first.session_id)).state == State.STARTING
    assert (await plane.get(second.session_id)).state == State.PENDING
    assert await waits_for(plane, second) == ["MEMORY: 1 device"]
    assert (await shown(plane)).memory_reserved_bytes == 30 * GIB

    await agent.report(await agent.assignment(first.session_id), "READY")
    await says(agent, memory_free_bytes=18 * GIB, memory_used_bytes=30 * GIB)
    await plane.place()
    assert await waits_for(plane, second) == ["MEMORY: 1 device"]

    await plane.apply(version("2.1.0", needs=Needs(min_memory_bytes=16 * GIB)))
    small = await plane.create()
    await plane.place()
    assert (await plane.get(small.session_id)).state == State.STARTING
    assert (await shown(plane)).memory_reserved_bytes == 46 * GIB

    await agent.report(await agent.assignment(first.session_id), "EXITED", exit_code=0)
    await says(agent, memory_free_bytes=48 * GIB, memory_used_bytes=0)
    await plane.place()
    assert (await plane.get(second.session_id)).state == State.STARTING


async def test_an_encoder_has_so_many_sessions(plane: Control) -> None:
    """The operator's limit counts promised sessions; a driver that has nothing left stops more; who does not encode is
    placed all the same."""
    await plane.apply(version("2.0.0", needs=Needs(encoder=True)))
    agent = await plane.agent("node-a", board(encoder_session_limit=1))
    first, second = await plane.create(), await plane.create()
    await plane.place()
    assert (await plane.get(first.session_id)).state == State.STARTING
    assert await waits_for(plane, second) == ["ENCODER_FULL: 1 device"]

    await says(agent, encoder_sessions=1, encoder_capacity_percent=0)
    await plane.place()
    assert await waits_for(plane, second) == ["ENCODER_FULL: 1 device"]

    await plane.apply(version("2.1.0"))
    other = await plane.create()
    await plane.place()
    assert (await plane.get(other.session_id)).state == State.STARTING

    await says(agent, encoder_sessions=1, encoder_capacity_percent=70)
    await plane.place()
    assert (await plane.get(second.session_id)).state == State.STARTING


async def test_a_desktops_gpu_keeps_nobody_from_the_renderers_beside_it(plane: Control) -> None:
    """Where somebody plays on the only GPU, a session that needs none is drawn by the CPU, and one that does waits."""
    player = [node_pb2.Device.ForeignProcess(pid=7, name="game", used_memory_bytes=6 * GIB)]
    renderers = [gpu(f"SOFT-{number}", kind=node_pb2.Device.SOFTWARE, index=number) for number in range(2)]
    await plane.agent("node-a", board(foreign_processes=player), *renderers)
    free = await plane.create()
    await plane.place()
    assert (await plane.get(free.session_id)).device == "SOFT-0"
    node: node_pb2.Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
    assert [device.uuid for device in node.devices] == ["GPU-0", "SOFT-0", "SOFT-1"]

    await plane.apply(version("2.0.0", needs=Needs(gpu=True)))
    bound = await plane.create()
    await plane.place()
    assert sorted(await waits_for(plane, bound)) == ["FOREIGN_PROCESS: 1 device", "NO_GPU: 2 devices"]
