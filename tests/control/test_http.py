"""What HTTP serves beside the API."""

from __future__ import annotations

from tests.control.harness import Control


async def test_a_probe_learns_whether_the_server_is_of_use(plane: Control) -> None:
    """Without a token: 200 while the store answers, 503 when it does not."""
    well = await plane.rest("GET", "/healthz", "")
    await plane.store.close()
    ill = await plane.rest("GET", "/healthz", "")

    assert (well.status_code, well.json()) == (200, {"status": "SERVING"})
    assert ill.status_code == 503


async def test_metrics_are_prometheus_and_say_what_is_going_on(plane: Control) -> None:
    """Sessions by state, slots by use, nodes, calls by code: no label of a session or user."""
    agent = await plane.agent()
    session = await plane.running(agent)
    await plane.create()
    await plane.rest("GET", "/stream/nope")
    await plane.reap()

    answer = await plane.rest("GET", "/metrics", "")

    text = answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'footlights_sessions{application="fake",state="READY"} 1.0',
        'footlights_sessions{application="fake",state="PENDING"} 1.0',
        'footlights_slots{kind="GPU",state="leased"} 1.0',
        'footlights_slots{kind="GPU",state="free"} 0.0',
        'footlights_nodes{state="READY"} 1.0',
    ):
        assert line in text
    assert 'grpc_code="NOT_FOUND"' in text
    assert session.session_id not in text
    assert "admin" not in text
