"""Partial updates: what a mask may name, and what becomes of what it names."""

from __future__ import annotations

import pytest
from footlights.v1 import application_pb2, node_pb2, profile_pb2, session_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from footlights import errors
from footlights.control.services import masks
from tests.control.harness import seconds

Limits, Needs = application_pb2.Limits, application_pb2.Needs
SESSION = ("labels", "priority", "limits")


def _session(**members: object) -> session_pb2.Session:
    known: dict[str, object] = {
        "session_id": "s",
        "labels": {"team": "a", "x.y": "1"},
        "priority": 3,
        "limits": Limits(max_duration=seconds(60), idle_timeout=seconds(30)),
    }
    return session_pb2.Session(**(known | members))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("paths", "given", "becomes"),
    [
        ([], {}, {}),
        ([], {"priority": 5}, {"priority": 5}),
        ([], {"session_id": "s", "labels": {"only": "this"}}, {"labels": {"only": "this"}}),
        (["priority"], {}, {"priority": 0}),
        (["labels"], {}, {"labels": {}}),
        (["labels"], {"labels": {"b": "2"}, "priority": 9}, {"labels": {"b": "2"}}),
        (["labels.team"], {"labels": {"team": "b", "other": "no"}}, {"labels": {"team": "b", "x.y": "1"}}),
        (["labels.team"], {}, {"labels": {"x.y": "1"}}),
        (["labels.x.y"], {}, {"labels": {"team": "a"}}),
        (["labels.`x.y`"], {"labels": {"x.y": "2"}}, {"labels": {"team": "a", "x.y": "2"}}),
        (
            ["limits.max_duration"],
            {"limits": Limits(max_duration=seconds(5))},
            {"limits": Limits(max_duration=seconds(5), idle_timeout=seconds(30))},
        ),
        (["limits.max_duration"], {}, {"limits": Limits(idle_timeout=seconds(30))}),
        (["limits"], {"limits": Limits(max_duration=seconds(5))}, {"limits": Limits(max_duration=seconds(5))}),
        (
            [],
            {"limits": Limits(unlimited=["queue_timeout"])},
            {"limits": Limits(max_duration=seconds(60), idle_timeout=seconds(30), unlimited=["queue_timeout"])},
        ),
        (["session_id", "priority"], {"priority": 1}, {"priority": 1}),
    ],
)
def test_what_a_mask_names_is_set_or_cleared(
    paths: list[str], given: dict[str, object], becomes: dict[str, object]
) -> None:
    """Nothing else changes. Without a mask, what is present is set."""
    current = _session()

    masks.apply(
        current,
        session_pb2.Session(**given),  # type: ignore[arg-type]
        FieldMask(paths=paths),
        mutable=SESSION,
        identity=("session_id",),
    )

    assert current == _session(**becomes)


@pytest.mark.parametrize(
    ("paths", "reason", "says"),
    [
        (["colour"], "UNKNOWN_FIELD", "'colour' is not a member of Session; choose from "),
        (["limits.colour"], "UNKNOWN_FIELD", "'limits.colour' is not a member of Session"),
        (["limits.max_duration.seconds"], "UNKNOWN_FIELD", "'limits.max_duration.seconds' is not a member"),
        (["labels."], "UNKNOWN_FIELD", "'labels.' names no key of the map"),
        ([""], "UNKNOWN_FIELD", "'' is not a member"),
        (["state"], "FIELD_IMMUTABLE", "'state' cannot be changed; choose from labels, limits, priority"),
        (["priority", "username"], "FIELD_IMMUTABLE", "'username' cannot be changed"),
        (["queue.position"], "FIELD_IMMUTABLE", "'queue.position' cannot be changed"),
    ],
)
def test_what_a_mask_may_not_name_is_refused_by_name(paths: list[str], reason: str, says: str) -> None:
    """And nothing is changed."""
    current = _session()

    with pytest.raises(errors.InvalidArgument) as caught:
        masks.apply(current, _session(priority=9), FieldMask(paths=paths), mutable=SESSION, identity=("session_id",))

    assert (caught.value.field, caught.value.reason) == ("update_mask", reason)
    assert says in caught.value.problem
    assert current == _session()


def test_without_a_mask_what_only_answers_have_is_passed_over() -> None:
    """So that what was read can be written back; a member that requests may have and not change is refused."""
    current, given = _session(), _session(state=session_pb2.Session.READY, etag="e", priority=4)

    paths = masks.apply(current, given, FieldMask(), mutable=SESSION, identity=("session_id",))

    assert not {"state", "etag"} & set(paths)
    assert current == _session(priority=4)
    with pytest.raises(errors.InvalidArgument, match="'priority' cannot be changed"):
        masks.apply(_session(), given, FieldMask(), mutable=("labels", "limits"), identity=("session_id",))


def test_members_with_presence_may_be_false() -> None:
    """``needs.gpu`` set to false is another thing than ``needs.gpu`` cleared."""
    profile = profile_pb2.Profile(profile="p", needs=Needs(gpu=True, slots=2))
    mutable, identity = ("needs",), ("profile",)

    masks.apply(profile, profile_pb2.Profile(needs=Needs(gpu=False)), FieldMask(), mutable=mutable, identity=identity)
    assert profile.needs == Needs(gpu=False, slots=2)
    masks.apply(profile, profile_pb2.Profile(), FieldMask(paths=["needs.gpu"]), mutable=mutable, identity=identity)
    assert profile.needs == Needs(slots=2)


def test_only_members_of_a_member_may_be_changeable() -> None:
    """Then the member as a whole is refused: clearing it would clear what it did not name."""
    node = node_pb2.Node(scheduling=node_pb2.Node.Scheduling(cordoned=True, subject="ann"))
    mutable = ("scheduling.cordoned", "scheduling.message")

    with pytest.raises(errors.InvalidArgument, match=r"choose from scheduling\.cordoned, scheduling\.message"):
        masks.apply(node, node_pb2.Node(), FieldMask(paths=["scheduling"]), mutable=mutable, identity=("node",))
    masks.apply(node, node_pb2.Node(), FieldMask(paths=["scheduling.cordoned"]), mutable=mutable, identity=("node",))

    assert node.scheduling == node_pb2.Node.Scheduling(subject="ann")
