"""Every field of the agents' link has a bound, and no message can be larger than the other side takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, Hello, Inventory, LaunchReport, LinkRequest, LinkResponse, LogPart
from footlights.agent.v1.certificate_pb2 import CertificateRequest
from footlights.agent.v1.node_pb2 import Device, NodeFacts
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from footlights.errors import InvalidArgument
from footlights.protocol.bounds import (
    MAX_LAUNCHES,
    MAX_MESSAGE_BYTES,
    MAX_SPAN_S,
    PACKAGE,
    PART_BYTES,
    bound,
    bound_of,
    cut,
    cut_text,
    excess,
    refuse,
)
from footlights.protocol.output import CUT, MAX_LINE_CHARACTERS, MAX_TAIL_BYTES

KINDS: list[FieldDescriptor] = [*LinkRequest.DESCRIPTOR.fields, *LinkResponse.DESCRIPTOR.fields]
FORMER_MESSAGE_BYTES = 4 << 20
"""The greatest message that the server of the release before takes."""
NUMBER_BYTES = 12
HEAD_BYTES = 8


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def reachable(descriptor: Any) -> Iterator[FieldDescriptor]:
    """The fields of a message and of those in it; what is bounded as a whole is not looked into."""
    for field in descriptor.fields:
        yield field
        bound = bound_of(field)
        whole = bound is not None and bound.whole
        if field.message_type is None or whole or is_map(field):
            continue
        if field.message_type.full_name.startswith(PACKAGE):
            yield from reachable(field.message_type)


def largest(descriptor: Any) -> int:
    """The size of the largest message of a type that is within the table."""
    if descriptor.full_name.startswith("google.protobuf."):
        return 2 * NUMBER_BYTES
    return sum(largest_field(field) + HEAD_BYTES for field in descriptor.fields)


def largest_field(field: Any) -> int:
    bound = bound_of(field)
    if bound is not None and bound.whole:
        return bound.size
    if is_map(field):
        assert bound is not None
        return bound.items * (2 * bound.size + 3 * HEAD_BYTES)
    if field.message_type is not None:
        one = largest(field.message_type) + HEAD_BYTES
        if not field.is_repeated:
            return one
        assert bound is not None
        return min(bound.total + one, bound.items * one) if bound.total else bound.items * one
    one = bound.size + HEAD_BYTES if bound is not None and bound.size else NUMBER_BYTES
    if not field.is_repeated:
        return one
    assert bound is not None
    return min(bound.items * one, bound.total + bound.items * HEAD_BYTES) if bound.total else bound.items * one


def test_every_field_has_a_bound() -> None:
    """Except for numbers, which their type bounds."""
    fields = {field.full_name: field for kind in KINDS for field in reachable(kind.message_type)}
    unbounded = [
        name
        for name, field in fields.items()
        if bound_of(field) is None
        and (field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES))
    ]

    assert unbounded == []


def test_bounds_are_what_the_two_sides_divide_their_messages_by() -> None:
    """The figures of the proto and of the code that makes parts and tails are the same."""
    for message, field in (("Hello", "launches"), ("LaunchSet", "launches"), ("Assignments", "assignments")):
        assert (bound(message, field).items, bound(message, field).total) == (MAX_LAUNCHES, PART_BYTES)
    tail = bound("LaunchReport", "log_tail")
    assert (tail.size, tail.total) == (4 * MAX_LINE_CHARACTERS, MAX_TAIL_BYTES)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.full_name)
def test_no_message_is_larger_than_the_other_side_takes(kind: FieldDescriptor) -> None:
    """What an agent sends is also taken by a server of the release before."""
    most = FORMER_MESSAGE_BYTES if kind.containing_type is LinkRequest.DESCRIPTOR else MAX_MESSAGE_BYTES

    assert largest(kind.message_type) + HEAD_BYTES < most


def fill(message: Any, descriptor: Any) -> None:
    """Put twice as much into every field as it may hold."""
    for field in descriptor.fields:
        bound = bound_of(field)
        value: Any = getattr(message, field.name)
        if bound is not None and bound.whole:
            continue
        if is_map(field):
            assert bound is not None
            for number in range(2 * bound.items):
                value[f"{number}-".ljust(2 * bound.size, "k")] = "é" * bound.size
        elif field.message_type is not None and field.message_type.full_name.startswith(PACKAGE):
            if not field.is_repeated:
                fill(value, field.message_type)
                continue
            assert bound is not None
            for _ in range(min(2 * bound.items, 300)):
                fill(value.add(), field.message_type)
        elif field.type == FieldDescriptor.TYPE_STRING and field.is_repeated:
            assert bound is not None
            value.extend("é" * bound.size for _ in range(min(2 * bound.items, 40)))
        elif field.type == FieldDescriptor.TYPE_STRING:
            assert bound is not None
            setattr(message, field.name, "é" * bound.size)


@pytest.mark.parametrize("message", [Inventory, LaunchReport, LogPart, Hello], ids=lambda kind: kind.__name__)
def test_what_is_too_large_is_cut_and_said(message: type[Message]) -> None:
    """Whatever is in it; a second time nothing is cut."""
    given: Any
    if message is Hello:
        given = Hello(node="n" * 10_000, inventory=Inventory())
        fill(given.facts, given.facts.DESCRIPTOR)
    else:
        given = message()
        fill(given, given.DESCRIPTOR)
    said = cut(given)

    assert said
    assert given.ByteSize() <= largest(given.DESCRIPTOR)
    assert cut(given) == []


def test_a_cut_text_is_marked_and_well_formed() -> None:
    """Also where the cut falls into a character of several bytes."""
    for size in range(200, 208):
        short = cut_text("é" * 1000, size)
        assert short.endswith(CUT)
        assert size - 1 <= len(short.encode()) <= size
    assert cut_text("é" * 100, 200) == "é" * 100


def test_what_was_cut_is_named_with_its_figures() -> None:
    """And many are counted instead."""
    report = LaunchReport(message="x" * 5000)
    inventory = Inventory()
    for _ in range(20):
        inventory.devices.add(note="x" * 600)

    assert cut(report) == ["message: 4096 of 5000 bytes"]
    assert cut(inventory)[0] == "devices[0].note: 512 of 600 bytes"
    assert cut(inventory) == []


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (LaunchReport(message="x" * 900_000), "message: has 900000 bytes. Give at most 4096."),
        (LaunchReport(signal_port=70_000), "signal_port: must be at most 65535 (got 70000)."),
        (LaunchReport(viewers=-1), "viewers: must be at least 0 (got -1)."),
        (LaunchReport(log_tail=["x" * 4000] * 100), "log_tail: has 400000 bytes in all. Give at most 65536."),
        (CertificateRequest(signing_request=b"x" * 20_000), "signing_request: has 20000 bytes. Give at most 16384."),
        (LogPart(lines=[""] * 1001), "lines: has 1001 items. Give at most 1000."),
        (Inventory(devices=[Device()] * 20_000), "devices: has 20000 items. Give at most 256."),
        (Inventory(devices=[Device(slots=1 << 30)]), "devices[0].slots: must be at most 64 (got 1073741824)."),
        (
            Inventory(facts=NodeFacts(labels={"k" * 300: ""})),
            "facts.labels: has an entry of 300 bytes: a key and a value may each have at most 256. "
            f"It is '{'k' * 64}'.",
        ),
        (
            LaunchReport(steps=[LaunchReport.Step(age=Duration(seconds=1 << 40))]),
            f"steps[0].age: must be from 0 to {MAX_SPAN_S} s (got {1 << 40} s and 0 ns).",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_beyond_a_bound_is_refused_by_field_and_value(message: Message, says: str) -> None:
    """With the greatest value that is taken; what is within is not."""
    with pytest.raises(InvalidArgument) as caught:
        refuse(message)

    assert caught.value.message == says
    # It was cut meanwhile.
    refuse(message)


def test_labels_are_cut_the_same_way_each_time() -> None:
    """The first by name stay: an inventory that does not change is not sent again and again."""
    kept = []
    for order in (1, -1):
        inventory = Inventory()
        for number in range(1000)[::order]:
            inventory.facts.labels[f"label-{number:04}"] = "x"
        assert cut(inventory) == ["facts.labels: 128 of 1000"]
        kept.append(sorted(inventory.facts.labels))

    assert kept[0] == kept[1] == [f"label-{number:04}" for number in range(128)]


def test_what_an_application_is_started_with_is_refused_and_not_cut() -> None:
    """Half a secret is no secret."""
    assignment = Assignment(secrets=b"x" * (3 << 20), usd_stage_uri="s" * 100)

    assert cut(assignment) == []
    assert excess(assignment) == [f"secrets: {3 << 20} bytes, at most {2 << 20} are allowed"]
    assert excess(Assignment()) == []
