"""Who looks at a session: listed, and disconnected, through the front door and a real application."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from footlights.v1 import session_pb2, viewer_pb2

from footlights import errors
from tests.control.harness import Control
from tests.control.services.test_viewing import connect
from tests.frontdoor.application import Application, running

Viewer = viewer_pb2.Viewer


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    async with running(Application()) as application:
        yield application


@pytest.fixture
async def session(plane: Control, application: Application) -> session_pb2.Session:
    """A session whose application is the one above."""
    agent = await plane.agent(facts={"signal_address": "127.0.0.1", "public_address": "127.0.0.1"})
    made = await plane.create()
    await plane.place()
    await agent.ready(made.session_id, signal_port=application.port)
    return made


async def listed(plane: Control, session_id: str, token: str | None = None, **members: object) -> list[Viewer]:
    request = viewer_pb2.ListViewersRequest(session_id=session_id, **members)  # type: ignore[arg-type]
    return list((await plane.call("ViewerService.ListViewers", request, token)).items)


async def disconnect(plane: Control, session_id: str, viewer_id: str, token: str | None = None) -> Viewer:
    request = viewer_pb2.DisconnectViewerRequest(session_id=session_id, viewer_id=viewer_id)
    answer: Viewer = await plane.call("ViewerService.DisconnectViewer", request, token)
    return answer


async def come(plane: Control, session_id: str) -> tuple[str, str, int]:
    """Come as a viewer; return its id, its grant and the status of the offer."""
    way = await connect(plane, session_id)
    return way.viewer_id, way.token, await offer(plane, session_id, way.token)


async def offer(plane: Control, session_id: str, grant: str) -> int:
    headers = {"Authorization": f"Bearer {grant}", "Content-Type": "application/sdp"}
    path = f"/v1/sessions/{session_id}/whep"
    return (await plane.http.post(path, content="v=0", headers=headers)).status_code


async def test_viewers_are_listed_newest_first(plane: Control, session: session_pb2.Session) -> None:
    """With who asked for their grant; a grant that was not used is no viewer."""
    assert await listed(plane, session.session_id) == []
    first, _, status = await come(plane, session.session_id)
    plane.clock.pass_s(1)
    second, _, _ = await come(plane, session.session_id)
    await connect(plane, session.session_id)

    found = await listed(plane, session.session_id)

    assert status == 201
    assert [(each.viewer_id, each.state, each.subject) for each in found] == [
        (second, Viewer.CONNECTED, "admin"),
        (first, Viewer.CONNECTED, "admin"),
    ]
    page = await plane.rest("GET", f"/v1/sessions/{session.session_id}/viewers?limit=1")
    assert [each["viewer_id"] for each in page.json()["items"]] == [second]
    token = page.json()["next_page_token"]
    rest = await plane.rest("GET", f"/v1/sessions/{session.session_id}/viewers?limit=1&page_token={token}")
    assert [each["viewer_id"] for each in rest.json()["items"]] == [first]


async def test_a_disconnected_viewer_is_out_and_stays_out(
    plane: Control, session: session_pb2.Session, application: Application
) -> None:
    """The application is asked to end it, by who has its secret; its grant opens nothing any more; others stay."""
    viewer_id, grant, _ = await come(plane, session.session_id)
    other, _, _ = await come(plane, session.session_id)

    answer = await disconnect(plane, session.session_id, viewer_id)

    ended = application.seen[-1]
    assert (ended.method, ended.path) == ("DELETE", "/whep/r-1")
    assert "Footlights-Launch-Proof" in ended.headers
    assert "fls_" not in str(application.seen)
    assert (answer.state, answer.HasField("removed_time")) == (Viewer.DISCONNECTED, True)
    assert await offer(plane, session.session_id, grant) == 403
    assert {each.viewer_id: each.state for each in await listed(plane, session.session_id)} == {
        viewer_id: Viewer.DISCONNECTED,
        other: Viewer.CONNECTED,
    }
    again = await disconnect(plane, session.session_id, viewer_id)
    assert again.removed_time == answer.removed_time


async def test_an_application_that_does_not_answer_is_tried_again(
    plane: Control, session: session_pb2.Session, application: Application
) -> None:
    """The grant is refused at once; the error says that the connection may be open still."""
    viewer_id, grant, _ = await come(plane, session.session_id)
    port = application.port
    await plane.agents[0].report(
        await plane.agents[0].assignment(session.session_id), "READY", signal_port=1, media_port=2, http_port=3
    )

    with pytest.raises(errors.Unavailable) as caught:
        await disconnect(plane, session.session_id, viewer_id)

    assert caught.value.reason == "SIGNALING_UNREACHABLE"
    assert await offer(plane, session.session_id, grant) == 403
    await plane.agents[0].report(
        await plane.agents[0].assignment(session.session_id), "READY", signal_port=port, media_port=2, http_port=3
    )
    await disconnect(plane, session.session_id, viewer_id)
    assert application.seen[-1].method == "DELETE"


async def test_only_those_who_may_see_the_session(plane: Control, session: session_pb2.Session) -> None:
    """For others it does not exist; a viewer that was never there is 404 too."""
    viewer_id, _, _ = await come(plane, session.session_id)
    stranger = await plane.token(subject="eve")

    for call in (
        listed(plane, session.session_id, stranger),
        disconnect(plane, session.session_id, viewer_id, stranger),
    ):
        with pytest.raises(errors.NotFound) as caught:
            await call
        assert caught.value.reason == "SESSION_NOT_FOUND"
    with pytest.raises(errors.NotFound) as caught:
        await disconnect(plane, session.session_id, "v-unknown")
    assert caught.value.reason == "VIEWER_NOT_FOUND"


async def test_one_that_vanished_is_not_connected_for_ever(plane: Control, session: session_pb2.Session) -> None:
    """A tab that is closed says nothing: that the application has no viewers does, and so does the session's end."""
    await come(plane, session.session_id)
    agent = plane.agents[0]
    assignment = await agent.assignment(session.session_id)
    ports = {"signal_port": 20000, "media_port": 20001, "http_port": 20002}
    plane.clock.pass_s(60)
    await agent.report(assignment, "READY", viewers=1, **ports)
    assert [each.state for each in await listed(plane, session.session_id)] == [Viewer.CONNECTED]

    await agent.report(assignment, "READY", viewers=0, **ports)

    assert [each.state for each in await listed(plane, session.session_id)] == [Viewer.DISCONNECTED]
