"""Creating sessions together: placed at once, waiting, known from before, or refused, each for itself.

With their request keys (`idempotency`), their slots (`slots`) and the rows written at once (`bulk`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import pytest

from footlights import errors, ids
from footlights.lifecycle import LaunchState
from footlights.store import Store, Transaction
from footlights.store.launches import launch_rows
from footlights.store.launches.slots import ChosenSlots
from footlights.store.nodes import node_rows
from footlights.store.nodes.node_rows import NodeScheduling
from footlights.store.schema import LaunchRow, SessionRow
from footlights.store.sessions import create as creating
from footlights.store.sessions import idempotency, session_rows
from footlights.store.sessions.create import Created, Creation, Outcome
from footlights.store.sessions.idempotency import Request
from tests.store.rows import NOW, S, add_version, begin, create, creation_of, join, observe, read, unlink

DAY = timedelta(hours=24)


def place(*slots: int, node: str = "node-a", device: str = "GPU-0") -> ChosenSlots:
    return ChosenSlots(node, device, slots, ids.new_id(), tuple(ids.new_id() for _ in slots))


async def create_all(store: Store, *creations: Creation) -> list[Created | errors.Error]:
    """Create in one call, on a node that is linked for it."""

    def write(tx: Transaction) -> list[Created | errors.Error]:
        add_version(tx)
        if node_rows.get(tx, "node-a") is None:
            join(tx)
        return creating.create_all(tx, creations)

    return await store.write(write)


def outcomes(answers: Sequence[Created | errors.Error]) -> list[str]:
    return [answer.reason if isinstance(answer, errors.Error) else answer.outcome.value for answer in answers]


def made(answer: Created | errors.Error) -> Created:
    assert isinstance(answer, Created), answer
    return answer


async def test_what_is_answered_is_what_is_there(store: Store) -> None:
    """The rows are built from what was written, and equal what is read: in every column, on every engine."""
    placed, waiting = await create_all(
        store,
        creation_of(labels={"team": "a"}, secrets=b"\x00\xff", max_total_s=1.5, placement=place(0, 1)),
        creation_of(arguments={"deep": [{"a": None}], "text": "ünï"}, priority=-7),
    )

    for answer in (placed, waiting):
        session = made(answer).session
        assert await store.read(partial(read, session_id=session.session_id)) == session
    launch = made(placed).launch
    assert launch is not None
    assert await store.read(lambda tx: launch_rows.get(tx, launch.launch_id)) == launch
    with pytest.raises(AttributeError):
        made(placed).session.state = "READY"  # type: ignore[misc]  # mypy refuses it too


async def test_a_session_that_is_placed_at_once_equals_one_that_waited(store: Store) -> None:
    """Except its revision and when it got it: one write or three, the same session, launch and leases come of it."""
    [answer] = await create_all(store, creation_of(session_id="x", placement=place(1)))
    later = await store.write(lambda tx: begin(tx, create(tx, session_id="y"), 0))
    other = await store.read(lambda tx: read(tx, "y"))

    session, launch = made(answer).session, made(answer).launch
    assert launch is not None
    apart = {"session_id", "launch_id", "revision", "updated_time", "slots"}
    for table, one, two in ((SessionRow, session, other), (LaunchRow, launch, later)):
        for name in set(table._fields) - apart:
            assert getattr(one, name) == getattr(two, name), name
    assert session.launch_id == launch.launch_id
    held = {lease.slot: lease.launch_id for lease in await store.read(launch_rows.live_leases)}
    assert held == {0: later.launch_id, 1: launch.launch_id}


async def test_of_two_that_were_given_one_slot_the_second_waits(store: Store) -> None:
    """The unique index decides; a session that loses a slot, or one of several, is in the queue and holds nothing."""
    answers = await create_all(
        store,
        creation_of(session_id="a", placement=place(0)),
        creation_of(session_id="b", placement=place(0, 1)),
        creation_of(session_id="c", placement=place(1)),
        creation_of(session_id="d", placement=place(0)),
    )

    assert outcomes(answers) == ["PLACED", "DISPLACED", "DISPLACED", "DISPLACED"]
    waiting = {row.session_id for row in await store.read(lambda tx: session_rows.pending_page(tx, 10).sessions)}
    holding = {lease.session_id for lease in await store.read(launch_rows.live_leases)}
    placed = {made(answer).session.session_id for answer in answers if made(answer).outcome is Outcome.PLACED}
    assert holding == placed
    assert waiting == {"a", "b", "c", "d"} - placed
    assert await store.read(lambda tx: launch_rows.last(tx, "b")) is None
    revisions = [made(answer).session.revision for answer in answers]
    assert sorted(set(revisions)) == sorted(revisions)


async def test_a_slot_that_somebody_holds_is_not_taken(store: Store) -> None:
    """Also where it was leased long before; once it is free it can be had."""
    launch = await store.write(lambda tx: (join(tx), begin(tx, create(tx), 0))[1])

    [first] = await create_all(store, creation_of(placement=place(0)))
    await store.write(lambda tx: observe(tx, launch, LaunchState.EXITED))
    [second] = await create_all(store, creation_of(placement=place(0)))

    assert outcomes([first, second]) == ["DISPLACED", "PLACED"]


@pytest.mark.parametrize("trouble", ["gone", "cordoned", "draining", "disconnected", "silent"])
async def test_a_node_that_takes_no_sessions_gets_none(store: Store, trouble: str) -> None:
    """What was chosen in memory may be out of date: the session waits, and placing decides with all it knows."""

    def spoil(tx: Transaction) -> None:
        epoch = join(tx).epoch
        if trouble in ("cordoned", "draining"):
            cordoned = trouble == "cordoned"
            node_rows.set_scheduling(tx, "node-a", NodeScheduling(cordoned, not cordoned), now=NOW)
        elif trouble == "disconnected":
            unlink(tx, "node-a", epoch, now=NOW)
        elif trouble == "silent":
            node_rows.set_silent(tx, "node-a", epoch, now=NOW)

    await store.write(spoil)
    placement = place(0, node="elsewhere" if trouble == "gone" else "node-a")

    [answer] = await create_all(store, creation_of(placement=placement))

    assert outcomes([answer]) == ["DISPLACED"]
    assert await store.read(launch_rows.live_leases) == []


async def test_the_queue_is_counted_for_those_that_wait(store: Store) -> None:
    """Placed sessions need no place in it; one that finds it full leaves nothing behind, not even a request key."""
    asked = Request("ann", "k1", b"body")
    answers = await create_all(
        store,
        creation_of(queue_limit=3),
        creation_of(queue_limit=3, placement=place(0)),
        creation_of(queue_limit=3, placement=place(0)),
        creation_of(queue_limit=3, session_id="full", request=asked),
        creation_of(queue_limit=3, placement=place(1)),
    )

    assert outcomes(answers) == ["WAITING", "PLACED", "DISPLACED", "QUEUE_FULL", "PLACED"]
    assert await store.read(lambda tx: session_rows.get(tx, "full")) is None
    [later] = await create_all(store, creation_of(queue_limit=5, session_id="later", request=asked))
    assert made(later).session.session_id == "later"


async def test_a_caller_may_have_as_many_waiting_as_places_are_left(store: Store) -> None:
    """In one commit as in several: one alone has half, the next half of the rest, its users likewise."""

    async def waiting(*users: str, caller: str, each: int) -> int:
        given = [
            creation_of(queue_limit=24, created_by=caller, username=user or caller)
            for user in users
            for _ in range(each)
        ]
        answers = [*await create_all(store, *given[::2]), *await create_all(store, *given[1::2])]
        return outcomes(answers).count("WAITING")

    assert await waiting("", caller="ann", each=24) == 12
    assert await waiting("u1", caller="portal", each=24) == 4
    assert await waiting("u2", caller="portal", each=24) == 2
    assert await waiting("", caller="bob", each=24) == 3
    assert await waiting("", caller="cem", each=1) == 1


async def test_a_version_that_was_deleted_starts_nothing(store: Store) -> None:
    """Its neighbours are created."""
    answers = await create_all(store, creation_of(), creation_of(application_version="2.0.0"), creation_of())

    assert [isinstance(answer, errors.Conflict) for answer in answers] == [False, True, False]
    assert "has just been deleted" in str(answers[1])


# Idempotency keys


async def test_the_same_request_finds_its_session(store: Store) -> None:
    """Per subject, with the same body, until it is forgotten after 24 hours; nothing is created or leased."""
    [first] = await create_all(store, creation_of(request=Request("ann", "k1", b"body")))

    async def again(subject: str, key: str, body: bytes = b"body", later: timedelta = timedelta(0)) -> str:
        asked = creation_of(request=Request(subject, key, body), now=NOW + later)
        [answer] = await create_all(store, asked)
        if isinstance(answer, Created) and answer.outcome is Outcome.KNOWN:
            assert answer.session == made(first).session
        return outcomes([answer])[0]

    assert await again("ann", "k1") == "KNOWN"
    assert await again("ann", "k1", later=DAY) == "KNOWN"
    assert await again("ann", "k1", b"other") == "REQUEST_ID_REUSED"
    assert await again("ann", "k2") == "WAITING"
    assert await again("bob", "k1") == "WAITING"
    assert await again("ann", "k1", b"other", later=DAY + S) == "REQUEST_ID_REUSED"
    await store.write(lambda tx: idempotency.forget_old(tx, now=NOW + DAY + S))
    assert await again("ann", "k1", b"other", later=DAY + S) == "WAITING"


async def test_of_equal_requests_in_one_batch_one_creates(store: Store) -> None:
    """The others find what it made; one with another body is refused."""
    answers = await create_all(
        store,
        creation_of(session_id="a", request=Request("ann", "k", b"body"), placement=place(0)),
        creation_of(session_id="b", request=Request("ann", "k", b"body"), placement=place(1)),
        creation_of(session_id="c", request=Request("ann", "k", b"other")),
        creation_of(session_id="d", request=Request("bob", "k", b"other")),
    )

    assert outcomes(answers) == ["PLACED", "KNOWN", "REQUEST_ID_REUSED", "WAITING"]
    assert made(answers[1]).session.session_id == "a"
    assert [lease.slot for lease in await store.read(launch_rows.live_leases)] == [0]


async def test_a_request_does_not_share_the_refusal_of_another(store: Store) -> None:
    """The first of two with one key asks for a version that is gone: the second, which does not, is served."""
    answers = await create_all(
        store,
        creation_of(session_id="a", application_version="2.0.0", request=Request("ann", "k", b"two")),
        creation_of(session_id="b", request=Request("ann", "k", b"one")),
        creation_of(session_id="c", request=Request("ann", "k", b"one")),
    )

    assert isinstance(answers[0], errors.Conflict)
    assert outcomes(answers[1:]) == ["WAITING", "KNOWN"]
    assert made(answers[2]).session.session_id == "b"


async def test_a_key_whose_session_is_gone_can_be_used_again(store: Store) -> None:
    """Otherwise its owner could neither find the session nor make another."""
    asked = Request("ann", "k1", b"body")
    await store.write(lambda tx: idempotency.claim(tx, [(asked, "pruned")], now=NOW))

    first, second = await create_all(store, creation_of(request=asked), creation_of(request=asked))

    assert outcomes([first, second]) == ["WAITING", "KNOWN"]


async def test_old_keys_are_forgotten(store: Store) -> None:
    """They would grow without bound."""
    for number in range(3):
        when = NOW + number * timedelta(hours=1)
        await create_all(store, creation_of(request=Request("ann", str(number), b""), now=when))

    forgotten = await store.write(lambda tx: idempotency.forget_old(tx, now=NOW + timedelta(hours=25, seconds=1)))

    assert forgotten == 2


# Together, through the store


async def test_many_at_once_get_each_their_own_answer(store: Store) -> None:
    """Equal requests, contested slots and a bad row among 200 that are written concurrently."""
    await create_all(store)
    asked = [
        creation_of(session_id=f"s{n}", placement=place(0, device=f"GPU-{n % 25}") if n < 100 else None)
        for n in range(198)
    ]
    asked += [creation_of(session_id="s0"), creation_of(session_id="extra", request=Request("ann", "k", b""))]

    answers = await asyncio.gather(
        *(store.write_batched(creating.SESSIONS, each) for each in asked), return_exceptions=True
    )

    failed = [number for number, answer in enumerate(answers) if isinstance(answer, BaseException)]
    assert failed == [198], "the second s0 breaks the primary key, alone"
    assert isinstance(answers[198], errors.Conflict)
    created = [answer for answer in answers if isinstance(answer, Created)]
    assert sum(answer.outcome is Outcome.PLACED for answer in created) == 25

    def found(tx: Transaction) -> list[SessionRow | None]:
        return [session_rows.get(tx, answer.session.session_id) for answer in created]

    assert await store.read(found) == [answer.session for answer in created]
    held = [(lease.device, lease.slot) for lease in await store.read(launch_rows.live_leases)]
    assert len(held) == len(set(held)) == 25
