"""Requests that are coalesced: they share reads, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from footlights import errors
from footlights.store import Store, Transaction, Unit, open_store
from footlights.store.coalescing import Coalescer


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store of one's own."""
    opened = await asyncio.to_thread(open_store, tmp_path)
    yield opened
    await opened.close()


def doubling(store: Store, read: list[list[int]]) -> Coalescer[int, int]:
    """Answers with the double, and notes what was read together."""

    def unit(questions: Sequence[int]) -> Unit[list[int]]:
        def answers(_: Transaction) -> list[int]:
            read.append(list(questions))
            if 1313 in questions:
                raise errors.NotFound("1313 is not there.")
            return [2 * question for question in questions]

        return answers

    return Coalescer(store, unit)


async def test_questions_of_one_instant_are_one_reading_and_each_has_its_answer(store: Store) -> None:
    """However many they are, within the bound."""
    read: list[list[int]] = []
    gathered = doubling(store, read)

    answers = await asyncio.gather(*(gathered(number) for number in range(gathered.MOST + 1)))

    assert answers == [2 * number for number in range(gathered.MOST + 1)]
    assert [len(each) for each in read] == [gathered.MOST, 1]


async def test_a_reading_begins_after_every_question_that_it_answers(store: Store) -> None:
    """A request that comes while one is under way is answered by the next: it may have written meanwhile."""
    read: list[list[int]] = []
    gathered = doubling(store, read)
    first = asyncio.create_task(gathered(1))
    while not read:  # noqa: ASYNC110 (what is waited for happens in a thread)
        await asyncio.sleep(0)

    assert await gathered(2) == 4
    assert await first == 2
    assert read == [[1], [2]]


async def test_a_failure_is_told_to_all_who_asked_and_the_next_are_answered(store: Store) -> None:
    """No caller waits indefinitely."""
    gathered = doubling(store, [])

    failed = await asyncio.gather(gathered(1), gathered(1313), return_exceptions=True)

    assert [type(each) for each in failed] == [errors.NotFound, errors.NotFound]
    assert await gathered(2) == 4


async def test_a_caller_that_gives_up_is_not_asked_for(store: Store) -> None:
    """An agent that hung up while many came."""
    read: list[list[int]] = []
    gathered = doubling(store, read)
    given_up = asyncio.create_task(gathered(1))
    await asyncio.sleep(0)
    given_up.cancel()

    assert await gathered(2) == 4
    assert read == [[2]]
