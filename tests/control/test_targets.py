"""Where a session's signalling is, as the front door asks for it."""

from __future__ import annotations

from footlights.control.targets import resolver
from footlights.ids import new_id
from tests.control.harness import Control


async def test_a_sessions_target_is_its_nodes_address_and_port(plane: Control) -> None:
    """While it runs; a session that was never created has none."""
    agent = await plane.agent()
    session = await plane.running(agent)
    resolve = resolver(plane.store)

    target = await resolve(session.session_id)

    assert target is not None
    assert (target.state, target.signal_port > 0, bool(target.address)) == ("READY", True, True)
    assert await resolve(new_id()) is None
    assert await resolve("not an id") is None
