"""Ending sessions on request: those that share a commit are written by the same few statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from footlights import errors, ids
from footlights.control.services import etags
from footlights.control.services.sessions import access
from footlights.control.services.sessions.present import session_message
from footlights.lifecycle import EndReason
from footlights.store.sessions.derivation import SessionStates
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.auth.roles import Caller
    from footlights.control.call.context import Call
    from footlights.control.services.writes import Writes
    from footlights.control.signals import Signals
    from footlights.store import Transaction

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Termination:
    caller: Caller
    session_id: str
    etag: str
    now: datetime


class SessionTerminator:
    """Ends sessions for callers."""

    def __init__(self, writes: Writes, bus: Signals, clock: Callable[[], datetime]) -> None:
        self._writes, self._bus, self._clock = writes, bus, clock
        self._batch = writes.batch("the ends of sessions", self._end_all, session_pb2.TerminateSessionResponse)

    async def terminate(
        self, request: session_pb2.TerminateSessionRequest, call: Call
    ) -> session_pb2.TerminateSessionResponse:
        """Have a session end, and return it. Raises NotFound where there is none that the caller may see."""

        def done(answer: session_pb2.TerminateSessionResponse) -> None:
            self._bus.sessions.publish()
            if answer.session.node:
                # Its slots are free when its agent has proved its end: nothing can be placed before.
                self._bus.assignments.publish(answer.session.node)
            else:
                self._bus.placing.publish()
            log.info("session_terminated", session_id=request.session_id)

        item = _Termination(call.caller, request.session_id, request.etag, self._clock())
        return await self._writes.run_batched(request, call, self._batch, item, done=done)

    def _end_all(
        self, tx: Transaction, terminations: Sequence[_Termination]
    ) -> list[session_pb2.TerminateSessionResponse | errors.Error]:
        lives = SessionStates.of_sessions(
            tx, {each.session_id for each in terminations if ids.is_uuid(each.session_id)}
        )
        refused: dict[int, errors.Error] = {}
        for number, each in enumerate(terminations):
            try:
                read = access.checked(lives.as_read(each.session_id), each.caller, each.session_id)
                lives.refuse(each.session_id)
                etags.check(each.etag, etags.of_session(read), f"session {each.session_id}")
            except errors.Error as error:
                refused[number] = error
                continue
            session = lives.session(each.session_id)
            assert session is not None
            lives.end(session, EndReason.USER_TERMINATED, f"Terminated by {each.caller.subject}.", now=each.now)
        lives.write()
        return [refused.get(number) or self._answer(lives, each.session_id) for number, each in enumerate(terminations)]

    def _answer(self, lives: SessionStates, session_id: str) -> session_pb2.TerminateSessionResponse:
        """Say what has become of a session by what is in memory: no statement for what an end does not need."""
        session = lives.session(session_id)
        assert session is not None
        launch = lives.launch(session.launch_id)
        if launch is not None:
            launch = launch._replace(log_tail=[])
        return session_pb2.TerminateSessionResponse(
            session_id=session_id,
            status="deleted",
            satus="deleted",
            session=session_message(session, launch),
        )
