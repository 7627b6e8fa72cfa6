"""Hypothesis strategies for messages and for JSON that is nearly theirs."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from footlights.gateway import times
from footlights.gateway.decode.json_scalars import RANGES
from footlights.gateway.decode.names import descriptor_of
from tests.conformance.echo import message

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_F = FieldDescriptor


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values of a scalar field."""
    if field.type in RANGES:
        low, high = RANGES[field.type]
        return st.integers(low, high)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return {
        _F.TYPE_BOOL: st.booleans(),
        _F.TYPE_STRING: TEXT,
        _F.TYPE_BYTES: st.binary(max_size=8),
        _F.TYPE_FLOAT: st.floats(width=32),
    }.get(field.type, st.floats())


@st.composite
def messages(draw: st.DrawFn, name: str = "Everything", depth: int = 2) -> Any:
    """A message of gatewaytest.v1 with any of its fields set."""
    found = message(name)()
    fields = list(descriptor_of(found).fields)
    for field in draw(st.lists(st.sampled_from(fields), unique_by=lambda f: f.number, max_size=6)):
        _set(draw, found, field, depth)
    return found


def _set(draw: st.DrawFn, found: Any, field: FieldDescriptor, depth: int) -> None:
    inner = field.message_type
    if field.is_repeated and inner is not None and inner.GetOptions().map_entry:
        entry = {name: scalars(inner.fields_by_name[name]) for name in ("key", "value")}
        getattr(found, field.name).update(draw(st.dictionaries(entry["key"], entry["value"], max_size=3)))
    elif field.is_repeated and inner is not None:
        for _ in range(draw(st.integers(0, 2))):
            _fill(draw, getattr(found, field.name).add(), inner, depth)
    elif field.is_repeated:
        getattr(found, field.name).extend(draw(st.lists(scalars(field), max_size=3)))
    elif inner is not None:
        getattr(found, field.name).SetInParent()
        _fill(draw, getattr(found, field.name), inner, depth)
    else:
        setattr(found, field.name, draw(scalars(field)))


def _fill(draw: st.DrawFn, found: Any, descriptor: Descriptor, depth: int) -> None:
    name = descriptor.full_name
    if name == "google.protobuf.Timestamp":
        found.seconds = draw(st.integers(times.MIN_SECONDS, times.MAX_SECONDS))
        found.nanos = draw(st.integers(0, 10**9 - 1))
    elif name == "google.protobuf.Duration":
        seconds = draw(st.integers(-times.MAX_DURATION_S, times.MAX_DURATION_S))
        nanos = draw(st.integers(0, 10**9 - 1))
        found.seconds, found.nanos = seconds, -nanos if seconds < 0 else nanos
    elif name == "google.protobuf.FieldMask":
        found.paths.extend(draw(st.lists(st.from_regex(r"[a-z]+(_[a-z]+)*(\.[a-z]+)?", fullmatch=True), max_size=3)))
    elif name == "google.protobuf.Struct":
        for key, value in draw(st.dictionaries(TEXT, JSON_VALUES, max_size=3)).items():
            set_value(found.fields[key], value)
    elif name == "google.protobuf.Value":
        set_value(found, draw(JSON_VALUES))
    elif name == "google.protobuf.Any":
        found.Pack(draw(messages("Thing", 0)))
    elif "value" in descriptor.fields_by_name and name.startswith("google.protobuf."):
        found.value = draw(scalars(descriptor.fields_by_name["value"]))
    elif depth:
        found.CopyFrom(draw(messages(descriptor.name, depth - 1)))


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def set_value(found: Any, value: Any) -> None:
    """Put a JSON value into a google.protobuf.Value."""
    if value is None:
        found.null_value = 0
    elif isinstance(value, bool):
        found.bool_value = value
    elif isinstance(value, str):
        found.string_value = value
    elif isinstance(value, float):
        found.number_value = value
    elif isinstance(value, dict):
        found.struct_value.SetInParent()
        for key, item in value.items():
            set_value(found.struct_value.fields[key], item)
    else:
        found.list_value.SetInParent()
        for item in value:
            set_value(found.list_value.values.add(), item)


NAMES = st.sampled_from(
    [name for field in descriptor_of(message("Everything")()).fields for name in (field.name, field.json_name)]
    + ["nope"]
)
ODD = st.sampled_from([
    None, True, False, 0, 1, -1, 3.0, 3.5, 1e40, 2**31, 2**63, 2**64, "", "1", "01",
    "1.0", "1e2", " 1", "NaN",
    "Infinity", "KIND_SMALL", "KIND_NOPE", "YQ==", "YQ", "-_8", "!!", "2020-01-02T03:04:05Z",
    "2020-01-02T03:04:05.123Z",
    "2020-01-02", "3s", "3.5s", "3m", "a,bC", "a_b", [], {}, [None], ["a"], [1], ["KIND_SMALL", "X"], {"a": "b"},
    {"1": "b"}, {"value": 1}, {"name": "n"}, {"name": "n", "size": "3"}, {"@type": "type.googleapis.com/nope.Nope"},
    {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}, {"a": [1, None, {"b": 2}]},
])  # fmt: skip
BODIES = st.dictionaries(NAMES, ODD | JSON_VALUES, max_size=4)
"""JSON objects that are nearly an Everything."""
