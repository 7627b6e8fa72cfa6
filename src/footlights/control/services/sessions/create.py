"""Creating sessions: check, resolve, place at once where possible, and write the session with its launch and leases."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from footlights import errors, ids, scheduler
from footlights.control import stored
from footlights.control.scheduling import views
from footlights.control.services.pools import ahead
from footlights.control.services.sessions import access, request_checks, resolve
from footlights.control.services.sessions.present import session_message, show_session
from footlights.control.services.writes import REPLAYED, Writes, digest_of
from footlights.launch.recipe import stages
from footlights.launch.recipe.limits import time_limits
from footlights.lifecycle import LaunchState, SessionState
from footlights.store.launches.slots import ChosenSlots
from footlights.store.remembered_calls import Written
from footlights.store.sessions import create, idempotency, session_rows
from footlights.store.sessions.create import Created, Creation, Outcome
from footlights.store.sessions.idempotency import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from footlights.auth.secrets import Box
    from footlights.control.call.context import Call
    from footlights.control.dispatch.sender import AssignmentSender
    from footlights.control.routes import Origin
    from footlights.control.scheduling.cache import FleetCache
    from footlights.control.scheduling.loop import PlacementLoop
    from footlights.control.services.catalog import Catalog
    from footlights.control.services.sessions.resolve import Arguments, Resolved
    from footlights.control.settings import ServerSettings
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.schema import LaunchRow, SessionRow
    from footlights.v1 import session_pb2

log = structlog.get_logger(__name__)


class SessionCreator:
    """Creates sessions."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        *,
        writes: Writes,
        catalog: Catalog,
        board: FleetCache,
        placing: PlacementLoop,
        telling: AssignmentSender,
        box: Box,
        origin: Origin,
        settings: ServerSettings,
        new_secret: Callable[[str], bytes | None],
        clock: Callable[[], datetime],
        new_id: Callable[[], str] = ids.new_id,
        decision_wait_s: float = 0.25,
        hand_over_wait_s: float = 1.0,
        count: Callable[[str, bool], None] | None = None,
    ) -> None:
        self._store, self._bus, self._writes, self._catalog = store, bus, writes, catalog
        self._board, self._placing, self._telling = board, placing, telling
        self._box, self._origin = box, origin
        self._settings, self._clock, self._new_id, self._new_secret = settings, clock, new_id, new_secret
        self._decision_wait_s, self._hand_over_wait_s = decision_wait_s, hand_over_wait_s
        self._count = count

    async def create(self, request: session_pb2.CreateSessionRequest, call: Call) -> session_pb2.Session:
        """Create a session; a repeated request finds the session that the first one created.

        Where it fails nothing was created, unless the error's message says otherwise.
        """
        caller = call.caller
        key = Request(caller.subject, request.request_id, digest_of(request)) if request.request_id else None
        username = access.owner(caller, request.username)
        if request.priority > 0:
            access.require(caller, "sessions.priority", "priority", f"{request.priority} is above 0")
        try:
            request_checks.check_labels("labels", request.labels)
            resolved = await self._catalog.resolve(request.application, request.application_version, request.profile)
            resolve.isolate(resolved.needs, caller, self._settings.least_isolation)
            profile_secrets = resolve.opened_secrets(resolved, self._box)
            arguments = resolve.arguments(resolved, request.application_arguments, profile_secrets)
            values = self._values(request, resolved, arguments, username=username, subject=caller.subject)
            shapes = (
                ahead.shapes(resolved) if resolved.pooled and ahead.takes(resolved, arguments, profile_secrets) else ()
            )
        except errors.Error:
            # What it names may be gone since it created its session. Only who fails looks: creations stay fast.
            if key is None or request.validate_only or (known := await self._known(key)) is None:
                raise
            return await self._replay(known, call)
        if request.validate_only:
            # It takes no slots, not even for the moment: the answer is that of a session that waits.
            creation = Creation(values, self._clock(), self._settings.queue_limit, request=key)
            return await self._writes.validate(partial(self._try, creation=creation), call)
        with self._placing.hold(self._wish(values, resolved), request.priority) as hold:
            creation = Creation(
                values | {"queue": dict(hold.told)},
                self._clock(),
                self._settings.queue_limit,
                request=key,
                placement=(
                    None if hold.choice is None else ChosenSlots.of(hold.choice, self._new_id, self._new_secret)
                ),
                shapes=shapes,
            )
            made = await self._write(creation)
            if made.outcome is Outcome.PLACED:
                hold.confirm()
            hold.wait(waits=made.outcome in (Outcome.WAITING, Outcome.DISPLACED))
        if made.outcome is Outcome.KNOWN:
            return await self._replay(made.session, call)
        log.info(
            "session_created",
            session_id=made.session.session_id,
            application=request.application,
            version=resolved.version.version,
            username=username,
            node=made.launch.node if made.launch else "",
            device=made.launch.device if made.launch else "",
        )
        if shapes and self._count is not None:
            self._count(request.application, made.outcome is Outcome.TAKEN)
        if made.outcome is Outcome.TAKEN and made.launch is not None:
            return await self._handed_over(made.session, made.launch)
        if hold.choice is not None and made.launch is not None:
            if not self._telling.send_now(made.launch, made.session, resolved.recipe):
                self._bus.assignments.publish(hold.choice.node)
            self._bus.sessions.publish()
            name = self._board.device_name(hold.choice.node, hold.choice.device)
            return session_message(made.session, made.launch, device_name=name)
        if hold.told:
            self._bus.sessions.publish()
            return session_message(made.session)
        return await self._first_decision(made.session)

    async def _known(self, key: Request) -> SessionRow | None:
        """Return the session that a request has created. Raises AlreadyExists where another one used its id."""
        found = await self._store.read(lambda tx: idempotency.find(tx, key))
        if isinstance(found, errors.Error):
            raise found
        return found

    async def _replay(self, session: SessionRow, call: Call) -> session_pb2.Session:
        call.initial_metadata.append(REPLAYED)
        return await self._store.read(lambda tx: show_session(tx, session, self._origin))

    def _values(
        self,
        request: session_pb2.CreateSessionRequest,
        resolved: Resolved,
        arguments: Arguments,
        *,
        username: str,
        subject: str,
    ) -> dict[str, Any]:
        allowed, allowed_limits = time_limits(resolved.limits).max_s, stored.packed_limits(resolved.limits)
        request_checks.apply_limits(request, resolved.limits)
        session_id = self._new_id()
        secrets = json.dumps(arguments.secrets).encode() if arguments.secrets else b""
        return {
            "session_id": session_id,
            "application": request.application,
            "application_version": resolved.version.version,
            "username": username,
            "created_by": subject,
            "profile": resolved.profile,
            "priority": request.priority,
            "request_id": request.request_id,
            "arguments": arguments.shown,
            "usd_stage_uri": arguments.usd_stage_uri,
            "secrets": self._box.seal(secrets, session_id.encode()) if secrets else b"",
            "labels": dict(request.labels),
            "needs": resolved.needs.SerializeToString(),
            "limits": stored.packed_limits(resolved.limits),
            "allowed_limits": allowed_limits,
            "max_total_s": allowed,
            "launcher": resolved.launcher,
            "given": arguments.given,
            "environment": resolved.environment,
            "stage_delivery": stages.unopened_by(resolved.version, arguments.usd_stage_uri),
        }

    def _wish(self, values: Mapping[str, Any], resolved: Resolved) -> scheduler.Wish:
        version = values["application"], values["application_version"]
        wish = views.needs_wish(values["session_id"], version, resolved.launcher, resolved.needs, {})
        return views.kept_away(replace(wish, username=values["username"], given=values["given"]), self._board.guard)

    def _try(self, tx: Transaction, creation: Creation) -> Written[session_pb2.Session]:
        """Create a session and answer with it, without its id: the transaction is undone, so it will never be.

        The session that the request created before has its id.
        """
        [made] = create.create_all(tx, [creation])
        if isinstance(made, errors.Error):
            raise made
        shown, known = show_session(tx, made.session, self._origin), made.outcome is Outcome.KNOWN
        if not known:
            shown.ClearField("session_id")
        return Written(shown, replayed=known)

    async def _write(self, creation: Creation) -> Created:
        try:
            return await self._store.write_batched(create.SESSIONS, creation)
        except errors.Conflict:
            if creation.request is None:
                raise
            # Another replica took the same request at the same moment: its session is found now.
            return await self._store.write_batched(create.SESSIONS, creation)

    async def _handed_over(self, session: SessionRow, launch: LaunchRow) -> session_pb2.Session:
        """Have a warm instance taken up, and wait a moment for it, so that the answer has what a viewer needs."""
        session_id, ends = session.session_id, asyncio.get_running_loop().time() + self._hand_over_wait_s

        def current(tx: Transaction) -> SessionRow:
            return session_rows.get(tx, session_id) or session

        with self._bus.sessions.subscribe() as changes:
            self._bus.assignments.publish(launch.node)
            self._bus.sessions.publish()
            # A slot of the pool is to be filled again.
            self._bus.placing.publish()
            while launch.state == LaunchState.READY and session.state == SessionState.STARTING:
                left_s = ends - asyncio.get_running_loop().time()
                if left_s <= 0 or await changes.next(left_s) is None:
                    break
                session = await self._store.read(current)
        return await self._store.read(lambda tx: show_session(tx, current(tx), self._origin))

    async def _first_decision(self, created: SessionRow) -> session_pb2.Session:
        """Wait a moment for scheduling, so that the answer has the node, or the place in the queue and why."""
        session_id = created.session_id
        with self._bus.decisions.expect(session_id) as decided:
            self._bus.session_changed()
            # Decided or not, the session is read as it is now.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(decided.wait(), self._decision_wait_s)

        def read(tx: Transaction) -> session_pb2.Session:
            return show_session(tx, session_rows.get(tx, session_id) or created, self._origin)

        return await self._store.read(read)
