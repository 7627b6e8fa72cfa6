"""Ending sessions on request: those that share a commit are written by the same few statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from footlights import errors, ids
from footlights.control.services.sessions import access
from footlights.lifecycle import EndReason
from footlights.store import BatchWrite, Store, Transaction
from footlights.store.sessions.derivation import SessionStates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.auth.roles import Caller
    from footlights.control.signals import Signals

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Termination:
    caller: Caller
    session_id: str
    now: datetime


class SessionTerminator:
    """Ends sessions for callers."""

    def __init__(self, store: Store, bus: Signals, clock: Callable[[], datetime]) -> None:
        self._store, self._bus, self._clock = store, bus, clock

    async def terminate(self, caller: Caller, session_id: str) -> None:
        """Have a session end. Raises NotFound where there is none that the caller may see."""
        node = await self._store.write_batched(_TERMINATIONS, _Termination(caller, session_id, self._clock()))
        self._bus.sessions.publish()
        if node:
            # Its slots are free when its agent has proved its end: nothing can be placed before.
            self._bus.assignments.publish(node)
        else:
            self._bus.placing.publish()
        log.info("session_terminated", session_id=session_id)


def _end_all(tx: Transaction, terminations: Sequence[_Termination]) -> list[str | errors.Error]:
    """Return for each the node that has to stop a launch; empty where there is none."""
    lives = SessionStates.of_sessions(tx, {each.session_id for each in terminations if ids.is_uuid(each.session_id)})
    answers: list[str | errors.Error] = []
    for each in terminations:
        try:
            access.checked(lives.as_read(each.session_id), each.caller, each.session_id)
            lives.refuse(each.session_id)
        except errors.Error as error:
            answers.append(error)
            continue
        session = lives.session(each.session_id)
        assert session is not None
        lives.end(session, EndReason.USER_TERMINATED, f"Terminated by {each.caller.subject}.", now=each.now)
        launch = lives.launch_of(session)
        answers.append(launch.node if launch else "")
    lives.write()
    return answers


_TERMINATIONS = BatchWrite("the ends of sessions", _end_all)
