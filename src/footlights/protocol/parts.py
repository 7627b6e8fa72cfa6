"""Sets in parts: the launches of a hello, and the assignments of a node with the recipes that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from footlights.agent.v1.agent_pb2 import (
    Assignment,
    Assignments,
    CarriedRecipe,
    LaunchSet,
    LinkRequest,
    LinkResponse,
    Part,
)
from footlights.protocol.bounds import MAX_MESSAGE_BYTES, PART_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from footlights.agent.v1.agent_pb2 import Hello
    from footlights.agent.v1.recipe_pb2 import Recipe

T = TypeVar("T")

MAX_RECIPES: Final = 128
"""Recipes that both sides of a link keep: the same ones, for both forget the one that was sent first."""


_HEAD_BYTES: Final = 8
"""What an item takes in a list beside itself, at most."""


class NotUnderstood(Exception):
    """The other side has broken the protocol."""


class CarriedRecipes:
    """The recipes that were carried over one link; a sender needs no more than their digests."""

    __slots__ = ("_recipes",)

    def __init__(self) -> None:
        self._recipes: dict[bytes, Recipe | None] = {}

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._recipes

    @property
    def next_out(self) -> bytes | None:
        """Which one the next one pushes out; None while there is room."""
        return next(iter(self._recipes)) if len(self._recipes) >= MAX_RECIPES else None

    def add(self, digest: bytes, recipe: Recipe | None = None) -> None:
        """Note that a recipe was carried."""
        self._recipes[digest] = recipe
        if len(self._recipes) > MAX_RECIPES:
            del self._recipes[next(iter(self._recipes))]

    def fill(self, assignment: Assignment) -> None:
        """Put its recipe in the place of an assignment's digest. Raises NotUnderstood where it was not carried."""
        if not assignment.recipe_digest:
            return
        recipe = self._recipes.get(assignment.recipe_digest)
        if recipe is None:
            raise NotUnderstood(f"launch {assignment.launch_id} is assigned with a recipe that was not sent")
        assignment.version.CopyFrom(recipe)
        assignment.ClearField("recipe_digest")


class Intake:
    """Makes whole again what arrives over one link."""

    def __init__(self) -> None:
        self._recipes = CarriedRecipes()
        self._set: list[Assignment] = []

    def take(self, message: LinkResponse) -> LinkResponse | None:
        """Return a message as the release before sends it; None where more of it follows. Raises NotUnderstood."""
        match message.WhichOneof("message"):
            case "recipe":
                self._recipes.add(message.recipe.digest, message.recipe.recipe)
                return None
            case "assignment":
                self._recipes.fill(message.assignment)
            case "assignments":
                for assignment in message.assignments.assignments:
                    self._recipes.fill(assignment)
                if message.assignments.HasField("part"):
                    self._set.extend(message.assignments.assignments)
                    if not message.assignments.part.last:
                        return None
                    whole, self._set = self._set, []
                    return LinkResponse(assignments=Assignments(assignments=whole))
        return message


def hello_parts(hello: Hello) -> list[LinkRequest]:
    """Return a hello in as many messages as it takes; what follows the first are launch sets."""
    sized = [(report, report.ByteSize()) for report in hello.launches]
    head = hello.ByteSize() - sum(size for _, size in sized)
    first, *more = divided(sized, first_room=max(0, PART_BYTES - head))
    del hello.launches[:]
    hello.launches.extend(first)
    hello.part.last = not more
    messages = [LinkRequest(hello=hello)]
    for launches in more:
        part = Part(last=launches is more[-1])
        messages.append(LinkRequest(launches=LaunchSet(launches=launches, part=part)))
    return messages


def assignment_parts(
    launches: Sequence[tuple[Assignment, CarriedRecipe | None]],
    carried: CarriedRecipes,
    *,
    part_bytes: int = PART_BYTES,
) -> Iterator[LinkResponse]:
    """Yield a full set in parts, each recipe before the part that names it, and note those in ``carried``."""
    part, room, named = Assignments(), part_bytes, set[bytes]()
    for assignment, recipe in launches:
        size = assignment.ByteSize() + _HEAD_BYTES
        fresh = recipe is not None and recipe.digest not in carried
        # A recipe that is carried must not push out one that a part which waits names.
        if part.assignments and (size > room or (fresh and carried.next_out in named)):
            part.part.last = False
            yield LinkResponse(assignments=part)
            part, room, named = Assignments(), part_bytes, set()
        if recipe is not None:
            named.add(recipe.digest)
            if fresh:
                carried.add(recipe.digest)
                yield LinkResponse(recipe=recipe)
        part.assignments.append(assignment)
        room -= size
    part.part.last = True
    yield LinkResponse(assignments=part)


def divided(items: Iterable[tuple[T, int]], *, first_room: int = PART_BYTES) -> list[list[T]]:
    """Return items, each with its size, in parts that fit a message; one at least, the first in a smaller room."""
    parts: list[list[T]] = [[]]
    room = first_room
    for item, size in items:
        if size + _HEAD_BYTES > room and (parts[-1] or room < PART_BYTES):
            parts.append([])
            room = PART_BYTES
        parts[-1].append(item)
        room -= size + _HEAD_BYTES
    return parts


def former_set(assignments: Sequence[Assignment]) -> Iterator[LinkResponse]:
    """Yield a full set for an agent of the release before, which takes it in one message only.

    Where it is too large for that, each launch is assigned by itself first. The set that follows names them with an
    epoch that is over: the agent does not end what is named, and refuses what is over.
    """
    if sum(assignment.ByteSize() for assignment in assignments) > MAX_MESSAGE_BYTES - PART_BYTES:
        for assignment in assignments:
            if assignment.desired == Assignment.RUNNING:
                yield LinkResponse(assignment=assignment)
        assignments = [
            Assignment(launch_id=each.launch_id) if each.desired == Assignment.RUNNING else each for each in assignments
        ]
    yield LinkResponse(assignments=Assignments(assignments=assignments))
