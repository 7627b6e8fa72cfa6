"""Creating sessions: those that share a commit are checked, counted, placed and inserted together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, select, tuple_

from footlights import errors
from footlights.lifecycle import Intent, LaunchFacts, LaunchState, SessionState, Stage, derive_state
from footlights.store import pools
from footlights.store.bulk import Inserter
from footlights.store.cluster.revisions import allocate
from footlights.store.launches import slots
from footlights.store.launches.slots import ChosenSlots, SlotClaim
from footlights.store.remembered_calls import reused
from footlights.store.schema import SESSION, VERSION, LaunchRow, SessionRow, microseconds
from footlights.store.sessions import idempotency
from footlights.store.unit import BatchWrite, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from footlights.store.sessions.idempotency import Request


@dataclass(frozen=True, slots=True)
class Creation:
    """A session to be created."""

    values: Mapping[str, Any]
    """The columns that its caller gives; the others get their defaults. With ``queue`` where it is known already."""
    now: datetime
    queue_limit: int
    """How many sessions may wait, this one included; of these its caller has a share."""
    request: Request | None = None
    placement: ChosenSlots | None = None
    """Where it is to be launched at once; None lets it wait for placing."""
    shapes: tuple[str, ...] = ()
    """Of warm instances, one of which it takes instead where there is one; the best shape first."""


class Outcome(Enum):
    """The result of a creation."""

    PLACED = "PLACED"
    """The session holds the slots that were chosen, and its launch has begun."""
    TAKEN = "TAKEN"
    """The session has taken a warm instance, with its id and its launch."""
    WAITING = "WAITING"
    """The session is PENDING: no slots were chosen."""
    DISPLACED = "DISPLACED"
    """The session is PENDING: one of its slots was leased already, or its node takes no sessions any more."""
    KNOWN = "KNOWN"
    """The same request created this session before."""


@dataclass(frozen=True, slots=True)
class Created:
    """The session as it was written, or found; and its launch where it was placed."""

    outcome: Outcome
    session: SessionRow
    launch: LaunchRow | None = None


def create_all(tx: Transaction, creations: Sequence[Creation]) -> list[Created | errors.Error]:
    """Create sessions and answer for each.

    An answer is an ``errors.AlreadyExists`` where the request's key was used for another request, an
    ``errors.Conflict`` where the version was deleted, ``errors.Exhausted`` where the queue is full or its caller has as
    much of it as one may have.

    Of creations with one request key the first creates and the others find what it made. The queue is counted once,
    after those that were placed; leases are decided by the database, each by its unique index.
    """
    batch = _Batch(tx, creations)
    batch.claim_requests()
    batch.look()
    batch.take_warm()
    batch.insert_placed()
    batch.insert_waiting()
    batch.give_requests_back()
    return batch.answered()


SESSIONS: BatchWrite[Creation, Created] = BatchWrite("the creation of sessions", create_all)
"""Creates sessions together: ``await store.write_batched(create.SESSIONS, Creation(...))``."""


class _Batch:
    """Creations in progress: each step answers for some, and leaves the others to the next."""

    def __init__(self, tx: Transaction, creations: Sequence[Creation]) -> None:
        self._tx, self._creations = tx, creations
        self._answers: dict[int, Created | errors.Error] = {}
        self._open = dict.fromkeys(range(len(creations)))
        self._claimed: dict[tuple[str, str], int] = {}
        self._following: dict[int, int] = {}
        self._revisions: dict[int, int] = {}
        self._waiting = 0
        self._shares: Counter[tuple[str, str]] = Counter()

    def claim_requests(self) -> None:
        wanted = []
        for number in self._open:
            request = self._creations[number].request
            if request is None:
                continue
            if request.key in self._claimed:
                self._following[number] = self._claimed[request.key]
            else:
                self._claimed[request.key] = number
                wanted.append((request, self._creations[number].values["session_id"]))
        if not wanted:
            return
        now = max(each.now for each in self._creations)
        known = idempotency.claim(self._tx, wanted, now=now)
        for key, found in known.items():
            number = self._claimed[key]
            self._answers[number] = found if isinstance(found, errors.Error) else Created(Outcome.KNOWN, found)
        self._open = {n: None for n in self._open if n not in self._following and n not in self._answers}

    def look(self) -> None:
        """Count the queue, and refuse those whose version was deleted."""
        if not self._open:
            return
        wanted = {self._version(number) for number in self._open}
        most = max(self._creations[number].queue_limit for number in self._open)
        there = set()
        for application, version, waiting in self._tx.execute(_LOOK, {"wanted": list(wanted), "most": most}):
            there.add((application, version))
            self._waiting = waiting
        for missing in wanted - there:
            for number in [each for each in self._open if self._version(each) == missing]:
                self._answer(number, errors.Conflict("The version has just been deleted. Choose another."))

    def take_warm(self) -> None:
        """Let those take a warm instance for which there is one."""
        none_left: set[tuple[str, ...]] = {()}
        for number in list(self._open):
            creation = self._creations[number]
            if creation.shapes in none_left:
                continue
            if (ready := pools.takeable(self._tx, creation.shapes)) is None:
                none_left.add(creation.shapes)
                continue
            taken = pools.take(self._tx, ready, creation.values, now=creation.now)
            if taken is not None:
                if creation.request is not None:
                    idempotency.point(self._tx, creation.request, taken.session.session_id)
                self._answer(number, Created(Outcome.TAKEN, taken.session, taken.launch))

    def insert_placed(self) -> None:
        placed = [(n, found) for n in self._open if (found := self._creations[n].placement) is not None]
        if not placed:
            return
        open_nodes = slots.open_nodes(self._tx, {found.node for _, found in placed})
        placed = [(number, found) for number, found in placed if found.node in open_nodes]
        self._give_revisions([number for number, _ in placed])
        written = {number: self._row(number, found) for number, found in placed}
        _insert_sessions(self._tx, written.values())
        takings = [SlotClaim(written[n].session_id, found, self._creations[n].now) for n, found in placed]
        begun = slots.take(self._tx, takings)
        displaced = []
        for number, found in placed:
            if found.launch_id in begun:
                self._answer(number, Created(Outcome.PLACED, written[number], begun[found.launch_id]))
            else:
                displaced.append(written[number].session_id)
        if displaced:
            self._tx.execute(delete(SESSION).where(SESSION.c.session_id.in_(displaced)))

    def insert_waiting(self) -> None:
        self._count_shares()
        for number in list(self._open):
            values, most = self._creations[number].values, self._creations[number].queue_limit
            caller, user = values["created_by"], values["username"]
            of_caller, of_user = self._shares[caller, ""], self._shares[caller, user]
            if refusal := _queue_refusal(most, self._waiting, of_caller, of_user if user != caller else 0):
                self._answer(number, refusal)
                continue
            self._waiting += 1
            self._shares[caller, ""] += 1
            self._shares[caller, user] += 1
        self._give_revisions(self._open)
        sessions = {number: self._row(number, None) for number in self._open}
        _insert_sessions(self._tx, sessions.values())
        for number, session in sessions.items():
            outcome = Outcome.WAITING if self._creations[number].placement is None else Outcome.DISPLACED
            self._answer(number, Created(outcome, session))

    def _count_shares(self) -> None:
        """Count what waits already for the callers whose creations are to wait, in all and for each user."""
        callers = {self._creations[number].values["created_by"] for number in self._open}
        for caller, user, waiting in self._tx.execute(_SHARES, {"callers": list(callers)}) if callers else ():
            self._shares[caller, ""] += waiting
            self._shares[caller, user] += waiting

    def give_requests_back(self) -> None:
        """Remove the keys of what was refused: it may be tried again."""
        refused = [key for key, n in self._claimed.items() if isinstance(self._answers[n], errors.Error)]
        ours = [key for key in refused if not isinstance(self._answers[self._claimed[key]], errors.AlreadyExists)]
        idempotency.drop(self._tx, ours)

    def answered(self) -> list[Created | errors.Error]:
        again = []
        for number, first in self._following.items():
            answer, request = self._answers[first], self._creations[number].request
            assert request is not None
            if isinstance(answer, errors.Error):
                again.append(number)
            elif self._digest(first) != request.body_digest:
                self._answers[number] = reused(request.request_id)
            else:
                self._answers[number] = Created(Outcome.KNOWN, answer.session, answer.launch)
        if again:
            # What they would have followed came to nothing: each stands for itself.
            answers = create_all(self._tx, [self._creations[number] for number in again])
            self._answers.update(zip(again, answers, strict=True))
        return [self._answers[number] for number in range(len(self._creations))]

    def _answer(self, number: int, answer: Created | errors.Error) -> None:
        self._answers[number] = answer
        del self._open[number]

    def _digest(self, number: int) -> bytes:
        request = self._creations[number].request
        assert request is not None
        return request.body_digest

    def _version(self, number: int) -> tuple[str, str]:
        values = self._creations[number].values
        return values["application"], values["application_version"]

    def _give_revisions(self, numbers: Iterable[int]) -> None:
        lacking = [number for number in numbers if number not in self._revisions]
        if lacking:
            self._revisions.update(zip(lacking, allocate(self._tx, len(lacking)), strict=True))

    def _row(self, number: int, placement: ChosenSlots | None) -> SessionRow:
        creation = self._creations[number]
        row = {
            **creation.values,
            "created_time": creation.now,
            "timeline": [[Stage.QUEUED.value, microseconds(creation.now)]],
            "revision": self._revisions[number],
        }
        if placement is not None:
            row["timeline"].append([Stage.PLACED.value, microseconds(creation.now)])
            row |= {"launch_id": placement.launch_id, "launch_count": 1}
            row |= {"state": _PLACED.state.value, "status_message": _PLACED.message}
        return SessionRow(**row)


def _queue_refusal(queue_limit: int, waiting: int, of_caller: int, of_user: int) -> errors.Exhausted | None:
    """Say why one more session may not wait; None where it may.

    A caller may have as many waiting as there are places left: so one alone has half of the queue, and however many
    there are, some places stay for the next one. Within what a caller may still have, the same holds for each of the
    users that it creates sessions for.
    """
    left = queue_limit - waiting
    if left <= 0:
        return _queue_full(f"{waiting} sessions are waiting already, as many as the queue holds.", queue_limit)
    kept = f"the other places of the queue, which has {queue_limit}, are kept for others."
    if of_caller >= left:
        return _queue_full(f"{of_caller} sessions that you created are waiting already; {kept}", queue_limit)
    if of_user and of_user >= left - of_caller:
        return _queue_full(f"{of_user} sessions of this user are waiting already; {kept}", queue_limit)
    return None


def _queue_full(problem: str, queue_limit: int) -> errors.Exhausted:
    return errors.Exhausted(
        f"{problem} Try again in a minute.",
        reason=errors.Reason.QUEUE_FULL,
        metadata={"queue_limit": str(queue_limit)},
        retry_after_s=60,
    )


_PLACED = derive_state(Intent.RUN, None, LaunchFacts(LaunchState.ASSIGNED))
_insert_sessions = Inserter(SESSION)

_WAITING = (
    select(func.count())
    .select_from(
        select(SESSION.c.session_id)
        .where(SESSION.c.state == SessionState.PENDING.value)
        .limit(bindparam("most"))
        .subquery()
    )
    .scalar_subquery()
)
_SHARES = (
    select(SESSION.c.created_by, SESSION.c.username, func.count())
    .where(
        SESSION.c.state == SessionState.PENDING.value, SESSION.c.created_by.in_(bindparam("callers", expanding=True))
    )
    .group_by(SESSION.c.created_by, SESSION.c.username)
)
# Removing a version waits for those that read it here, and then counts the sessions that were created of it.
_LOOK = (
    select(VERSION.c.application, VERSION.c.version, _WAITING)
    .where(tuple_(VERSION.c.application, VERSION.c.version).in_(bindparam("wanted", expanding=True)))
    .with_for_update(of=VERSION, read=True, key_share=True)
)
