"""Writes by request id: one effect, one answer, on both engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from footlights import errors
from footlights.store import Store, Transaction, remembered_calls
from footlights.store.remembered_calls import CallKey, Written
from footlights.store.schema import REMEMBERED_CALL
from tests.store.rows import NOW, S

KEY = CallKey("ann", "/footlights.v1.TokenService/CreateToken", "k", b"asked")
OTHER = replace(KEY, request_id="other")


class Effects:
    """Writes that count themselves; an answer is the number of its write."""

    def __init__(self, *, refused: Sequence[int] = ()) -> None:
        self.made, self.refused = 0, refused

    def __call__(self, numbers: Sequence[int]) -> list[str | errors.Error]:
        answers: list[str | errors.Error] = []
        for _ in numbers:
            self.made += 1
            refused = self.made in self.refused
            answers.append(errors.NotFound(f"nothing {self.made}") if refused else f"made {self.made}")
        return answers


async def _once(
    store: Store, effects: Effects, *calls: CallKey | None, later: timedelta = timedelta()
) -> list[Written[str] | errors.Error]:
    return await store.write(
        lambda tx: remembered_calls.once(
            tx,
            calls,
            effects,
            encode=lambda _, answer: answer.encode(),
            decode=lambda _, answer: answer.decode(),
            now=NOW + later,
        )
    )


async def _forget(store: Store, now: datetime = NOW, /, **bound: int) -> int:
    found = await store.read(lambda tx: remembered_calls.out_of_date(tx, now=now, **bound))
    return await store.write(lambda tx: remembered_calls.forget(tx, found))


def _kept(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(REMEMBERED_CALL)).scalar_one())


async def test_a_repeated_call_gets_the_first_answer(store: Store) -> None:
    """Once written, whatever comes; without an id each call is one of its own."""
    effects = Effects()

    first = await _once(store, effects, KEY)
    second = await _once(store, effects, KEY)
    without = await _once(store, effects, None, None)

    assert first == [Written("made 1")]
    assert second == [Written("made 1", replayed=True)]
    assert without == [Written("made 2"), Written("made 3")]
    assert await store.read(_kept) == 1


@pytest.mark.parametrize(
    "another", [replace(KEY, subject="bob"), replace(KEY, method="/x/Y"), replace(KEY, request_id="l")]
)
async def test_an_id_belongs_to_its_caller_and_rpc(store: Store, another: CallKey) -> None:
    """The same id of another caller, or for another RPC, is another one."""
    effects = Effects()

    assert await _once(store, effects, KEY) == [Written("made 1")]
    assert await _once(store, effects, another) == [Written("made 2")]


async def test_another_request_under_the_same_id_is_refused(store: Store) -> None:
    """Also in the same commit; the first one's answer stays."""
    effects, changed = Effects(), replace(KEY, digest=b"something else")

    first, beside = await _once(store, effects, KEY, changed)
    [after] = await _once(store, effects, changed)

    assert first == Written("made 1")
    for refused in (beside, after):
        assert isinstance(refused, errors.AlreadyExists)
        assert (refused.reason, refused.metadata["request_id"]) == ("REQUEST_ID_REUSED", "k")
    assert await _once(store, effects, KEY) == [Written("made 1", replayed=True)]
    assert effects.made == 1


async def test_a_failed_call_may_be_tried_again(store: Store) -> None:
    """Its id is free, also for the calls that share its commit."""
    effects = Effects(refused=[1])

    failed, second, third = await _once(store, effects, KEY, KEY, OTHER)

    assert isinstance(failed, errors.NotFound)
    assert (second, third) == (Written("made 3"), Written("made 2"))
    assert await _once(store, effects, KEY) == [Written("made 3", replayed=True)]


async def test_a_unit_that_is_undone_leaves_nothing(store: Store) -> None:
    """An exception rolls its id back with it."""

    def fails(_: Sequence[int]) -> list[str]:
        raise errors.Conflict("too late")

    with pytest.raises(errors.Conflict):
        await _once(store, fails, KEY)  # type: ignore[arg-type]

    assert await store.read(_kept) == 0


async def test_calls_are_forgotten_after_a_day(store: Store) -> None:
    """Those of a moment later are kept."""
    effects = Effects()
    await _once(store, effects, KEY)
    await _once(store, effects, OTHER, later=10 * S)

    removed = await _forget(store, NOW + remembered_calls.TTL + 5 * S)

    assert removed == 1
    assert await _once(store, effects, KEY, OTHER) == [Written("made 3"), Written("made 2", replayed=True)]


@pytest.mark.parametrize("bound", [{"most": 4}, {"most_bytes": 4 * len("made 1")}])
async def test_of_a_caller_a_bounded_number_of_calls_and_bytes_is_remembered(
    store: Store, bound: dict[str, int]
) -> None:
    """The newest are kept; other callers keep all of theirs."""
    effects = Effects()
    for number in range(6):
        await _once(store, effects, replace(KEY, request_id=f"k{number}"), later=number * S)
    await _once(store, effects, replace(KEY, subject="bob"))

    removed = await _forget(store, **bound)

    assert (removed, await store.read(_kept)) == (2, 5)
    [oldest], [kept] = (
        await _once(store, effects, replace(KEY, request_id="k1")),
        await _once(store, effects, replace(KEY, request_id="k2")),
    )
    assert (oldest, kept) == (Written("made 8"), Written("made 3", replayed=True))


async def test_a_call_that_was_made_again_meanwhile_is_kept(store: Store) -> None:
    """What was found out of date is removed only as it was found."""
    later = remembered_calls.TTL + 5 * S
    effects = Effects()
    await _once(store, effects, KEY)
    found = await store.read(lambda tx: remembered_calls.out_of_date(tx, now=NOW + later))
    await store.write(lambda tx: remembered_calls.forget(tx, found))
    await _once(store, effects, KEY, later=later)

    removed = await store.write(lambda tx: remembered_calls.forget(tx, found))

    assert (len(found), removed) == (1, 0)
