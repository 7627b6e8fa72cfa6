"""Ending sessions because somebody asks for it: what shares a commit is written by the same few statements."""

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
class _Wish:
    """That a session should end."""

    caller: Caller
    session_id: str
    now: datetime


class Ending:
    """Ends sessions."""

    def __init__(self, store: Store, bus: Signals, clock: Callable[[], datetime]) -> None:
        """Take what it writes to, and whom it wakes."""
        self._store, self._bus, self._clock = store, bus, clock

    async def end(self, caller: Caller, session_id: str) -> None:
        """Ask for a session's end.

        Raises:
            errors.NotFound: there is none that the caller may see.
        """
        node = await self._store.write_batched(_WISHES, _Wish(caller, session_id, self._clock()))
        self._bus.watchers()
        if node:
            # Its slots are free when its agent has proved its end: until then there is nothing to place.
            self._bus.assigned(node)
        else:
            self._bus.waiting()
        log.info("session_terminated", session_id=session_id)


def _end_all(tx: Transaction, wishes: Sequence[_Wish]) -> list[str | errors.Error]:
    """Answer for each with the node that has to end something; empty where none has."""
    lives = SessionStates.of_sessions(tx, {wish.session_id for wish in wishes if ids.is_uuid(wish.session_id)})
    answers: list[str | errors.Error] = []
    for wish in wishes:
        try:
            session = access.checked(lives.session(wish.session_id), wish.caller, wish.session_id)
        except errors.NotFound as error:
            answers.append(error)
            continue
        lives.end(session, EndReason.USER_TERMINATED, f"Terminated by {wish.caller.subject}.", now=wish.now)
        launch = lives.launch_of(session)
        answers.append(launch.node if launch else "")
    lives.write()
    return answers


_WISHES = BatchWrite("the ends of sessions", _end_all)
