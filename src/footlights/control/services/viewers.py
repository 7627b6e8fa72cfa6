"""ViewerService: who looks at a session, and disconnecting them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.control.call.pages import Chunk, ListPage, PagedList, Place
from footlights.control.services.sessions import access
from footlights.frontdoor import FrontDoorError, Limits, end_resources
from footlights.lifecycle import SessionState, known
from footlights.protocol.times import timestamp
from footlights.store.launches import launch_rows
from footlights.store.schema import ViewerRow, microseconds, moment
from footlights.store.sessions import viewers as rows
from footlights.v1 import viewer_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.control.call.context import Call
    from footlights.control.call.sealed import Sealer
    from footlights.control.services.writes import Writes
    from footlights.frontdoor import Resolve
    from footlights.store import Store, Transaction
    from footlights.store.schema import SessionRow

log = structlog.get_logger(__name__)

UNSEEN_S = 30.0
"""So long after a viewer came its application has reported it; one that then reports none has none."""


class ViewerService:
    """Serves the viewers of sessions."""

    def __init__(
        self, store: Store, writes: Writes, resolve: Resolve, clock: Callable[[], datetime], *, sealer: Sealer
    ) -> None:
        self._store, self._writes, self._resolve, self._clock, self._sealer = store, writes, resolve, clock, sealer
        self._limits = Limits()

    async def list_viewers(self, request: viewer_pb2.ListViewersRequest, call: Call) -> viewer_pb2.ListViewersResponse:
        """Return one page of a session's viewers, newest first."""
        pages = PagedList(self._sealer, "viewers", request)

        def read(tx: Transaction) -> ListPage[viewer_pb2.Viewer]:
            session = access.find(tx, call.caller, request.session_id)

            def some(after: Place | None, limit: int) -> Chunk[viewer_pb2.Viewer]:
                at = (moment(after[0]), after[1]) if after else None
                found = rows.page(tx, session.session_id, at, limit)
                shown = [
                    ([microseconds(row.connected_time), row.viewer_id], self._message(tx, session, row))
                    for row in found.rows
                ]
                return Chunk(shown, found.found == limit)

            return pages.page(request, some)

        page = await self._store.read(read)
        return viewer_pb2.ListViewersResponse(items=page.items, next_page_token=page.next_page_token)

    async def disconnect_viewer(self, request: viewer_pb2.DisconnectViewerRequest, call: Call) -> viewer_pb2.Viewer:
        """Refuse a viewer's grant from now on, and end its connections.

        Raises Unavailable where the grant is refused and the application did not end a connection.
        """
        session_id, viewer_id = request.session_id, request.viewer_id

        def find(tx: Transaction) -> tuple[SessionRow, ViewerRow]:
            session = access.find(tx, call.caller, session_id)
            row = rows.get(tx, session.session_id, viewer_id)
            if row is None:
                raise errors.NotFound(
                    f"session {session_id} has no viewer {viewer_id!r}. List them with GET "
                    f"/v1/sessions/{session_id}/viewers.",
                    reason=errors.Reason.VIEWER_NOT_FOUND,
                    metadata={"session_id": session_id, "viewer_id": viewer_id},
                )
            return session, row

        def write(tx: Transaction) -> viewer_pb2.Viewer:
            session, row = find(tx)
            return self._message(tx, session, rows.remove(tx, row, now=self._clock()))

        def done(answer: viewer_pb2.Viewer) -> None:
            log.info("viewer_disconnected", session_id=session_id, viewer_id=answer.viewer_id)

        answer = await self._writes.run(request, call, write, answer=viewer_pb2.Viewer, done=done)
        if not request.validate_only:
            _, row = await self._store.read(find)
            await self._end(session_id, row)
        return answer

    async def _end(self, session_id: str, row: ViewerRow) -> None:
        """End the connections that the application holds; front doors close the sockets that they hold."""
        target = await self._resolve(session_id)
        try:
            if target is not None and target.takes_viewers:
                await end_resources(target, row.connections, self._limits)
        except FrontDoorError as problem:
            raise problem.error from None
        now = self._clock()
        await self._store.write(lambda tx: rows.disconnect(tx, session_id, row.viewer_id, row.connections, now=now))

    def _message(self, tx: Transaction, session: SessionRow, row: ViewerRow) -> viewer_pb2.Viewer:
        message = viewer_pb2.Viewer(
            viewer_id=row.viewer_id,
            session_id=row.session_id,
            state=viewer_pb2.Viewer.DISCONNECTED,
            subject=row.subject,
            connected_time=timestamp(row.connected_time),
        )
        if row.disconnected_time is not None:
            message.disconnected_time.CopyFrom(timestamp(row.disconnected_time))
        elif session.ended_time is not None:
            message.disconnected_time.CopyFrom(timestamp(session.ended_time))
        if row.removed_time is not None:
            message.removed_time.CopyFrom(timestamp(row.removed_time))
        elif self._is_connected(tx, session, row):
            message.state = viewer_pb2.Viewer.CONNECTED
        return message

    def _is_connected(self, tx: Transaction, session: SessionRow, row: ViewerRow) -> bool:
        state = known(SessionState, session.state)
        if not row.connections or session.ended_time is not None or state is None or not state.has_picture:
            return False
        if (self._clock() - row.changed_time).total_seconds() < UNSEEN_S:
            return True
        launch = launch_rows.get(tx, session.launch_id) if session.launch_id else None
        return launch is not None and launch.viewers != 0
