"""Sets in parts: nothing is lost, no part is too large, and recipes are carried once."""

from __future__ import annotations

import random

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, CarriedRecipe, Hello, LaunchReport, LinkResponse
from footlights.agent.v1.recipe_pb2 import Recipe
from hypothesis import example, given, settings
from hypothesis import strategies as st

from footlights.protocol.bounds import MAX_MESSAGE_BYTES, PART_BYTES
from footlights.protocol.parts import (
    MAX_RECIPES,
    CarriedRecipes,
    Intake,
    NotUnderstood,
    assignment_parts,
    former_set,
    hello_parts,
)


def carried(number: int, size: int = 0) -> CarriedRecipe:
    return CarriedRecipe(digest=f"{number}".encode(), recipe=Recipe(version=f"{number}", description="x" * size))


def named(number: int, recipe: CarriedRecipe | None = None, secrets: bytes = b"") -> Assignment:
    digest = recipe.digest if recipe is not None else b""
    return Assignment(
        launch_id=f"l-{number}", epoch=1, desired=Assignment.RUNNING, recipe_digest=digest, secrets=secrets
    )


def taken(messages: list[LinkResponse], intake: Intake | None = None) -> list[Assignment]:
    """What an agent has after these messages: exactly one whole set."""
    intake = intake or Intake()
    wholes = [whole for message in messages if (whole := intake.take(message)) is not None]
    assert [whole.WhichOneof("message") for whole in wholes] == ["assignments"]
    return list(wholes[0].assignments.assignments)


@pytest.mark.parametrize(("launches", "size"), [(0, 0), (1, 100), (300, 50), (5000, 600), (40, 70_000)])
def test_a_hello_comes_in_as_many_parts_as_it_takes(launches: int, size: int) -> None:
    """All launches in their order; the parts fit, and the last one says so."""
    reports = [LaunchReport(launch_id=f"l-{number}", message="x" * size) for number in range(launches)]
    first, *more = hello_parts(Hello(node="node-a", launches=reports))

    assert first.hello.node == "node-a"
    found = [*first.hello.launches, *(report for part in more for report in part.launches.launches)]
    assert found == reports
    assert [part.launches.part.last for part in more] == [False] * (len(more) - 1) + [True] * bool(more)
    assert first.hello.part.last == (not more)
    assert all(part.ByteSize() < PART_BYTES + size + 1000 for part in (first, *more))
    assert len(more) <= 2 * launches * size // PART_BYTES + 1


def test_the_largest_set_goes_in_parts_with_its_recipes_once() -> None:
    """64 launches with the largest versions and secrets exceed what one message may carry."""
    recipes = [carried(number, 256 << 10) for number in range(8)]
    launches = [(named(number, recipes[number % 8], b"s" * (512 << 10)), recipes[number % 8]) for number in range(64)]
    messages = list(assignment_parts(launches, CarriedRecipes()))

    assert sum(message.ByteSize() for message in messages) > MAX_MESSAGE_BYTES
    assert all(message.ByteSize() <= PART_BYTES + 1000 for message in messages)
    assert sum(message.WhichOneof("message") == "recipe" for message in messages) == 8
    found = taken(messages)
    assert [each.launch_id for each in found] == [f"l-{number}" for number in range(64)]
    assert {each.version.version for each in found} == {str(number) for number in range(8)}
    assert all(len(each.secrets) == 512 << 10 and not each.recipe_digest for each in found)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 3 * MAX_RECIPES), st.integers(0, 500), st.integers(0, 2**32), st.integers(1, 20_000))
@example(150, 300, 0, 1)
def test_both_sides_keep_the_same_recipes(kinds: int, launches: int, seed: int, size: int) -> None:
    """However many there are, and in whatever order: an agent never lacks one that an assignment names."""
    sent, intake, dice = CarriedRecipes(), Intake(), random.Random(seed)
    for _ in range(3):
        numbers = dice.choices(range(kinds), k=launches)
        fresh = [(named(at, carried(number), b"s" * size), carried(number)) for at, number in enumerate(numbers)]
        found = taken(list(assignment_parts(fresh, sent)), intake)
        assert [each.version.version for each in found] == [str(number) for number in numbers]


def test_a_fresh_recipe_pushes_out_none_that_a_part_names() -> None:
    """One that was carried for an earlier launch of the set may be the next to go."""
    numbers = [*range(MAX_RECIPES), 0, MAX_RECIPES]
    messages = list(
        assignment_parts([(named(each, carried(each)), carried(each)) for each in numbers], CarriedRecipes())
    )

    assert [each.version.version for each in taken(messages)] == [str(number) for number in numbers]


def test_recipes_that_are_kept_are_bounded() -> None:
    """The one that was carried first is forgotten, and naming it is not understood."""
    intake = Intake()
    for number in range(MAX_RECIPES + 1):
        assert intake.take(LinkResponse(recipe=carried(number))) is None

    with pytest.raises(NotUnderstood, match="l-5 is assigned with a recipe that was not sent"):
        intake.take(LinkResponse(assignment=named(5, carried(0))))
    whole = intake.take(LinkResponse(assignment=named(6, carried(1))))
    assert whole is not None
    assert whole.assignment.version.version == "1"


def test_a_set_without_parts_is_whole() -> None:
    """As servers of the release before send it."""
    [message] = former_set([Assignment(launch_id="l", version=Recipe(version="1"))])

    assert not message.assignments.HasField("part")
    assert [each.version.version for each in taken([message])] == ["1"]


def test_a_set_that_is_too_large_for_an_agent_of_the_release_before_ends_nothing() -> None:
    """Each launch that is to run is assigned by itself; the set names all, with an epoch that is over."""
    running = [
        Assignment(launch_id=f"l-{number}", epoch=2, desired=Assignment.RUNNING, secrets=b"s" * (1 << 20))
        for number in range(20)
    ]
    over = Assignment(launch_id="over", epoch=2, desired=Assignment.STOPPED)
    *single, last = former_set([*running, over])

    assert [message.assignment for message in single] == running
    assert [(each.launch_id, each.epoch, each.desired) for each in last.assignments.assignments] == [
        *((each.launch_id, 0, 0) for each in running),
        ("over", 2, Assignment.STOPPED),
    ]
    assert last.ByteSize() < PART_BYTES
