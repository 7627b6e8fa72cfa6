"""How large each field of the agents' link may be, for both sides: ``footlights.http.v1.rules`` of its messages.

What is for people or for counting is cut to its bound by the side that sends it (``cut``), with a mark in the text, and
it says so. So the other side refuses what is larger (``refuse``), except from an agent of the release before, which
knows no bounds: that is cut. What an application is started with cannot be cut: ``excess`` says that it must not be
sent.

The bounds make the largest message of each kind a known number, so none is refused by gRPC: it is below
``MAX_MESSAGE_BYTES`` on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

from footlights.agent.v1 import agent_pb2
from footlights.errors import InvalidArgument, Reason
from footlights.http.v1 import annotations_pb2
from footlights.protocol.output import CUT, LEFT_OUT, bounded_tail

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

PACKAGE: Final = "footlights.agent.v1."

MAX_MESSAGE_BYTES: Final = 16 << 20
"""The greatest message that either side takes."""

PART_BYTES: Final = 1 << 20
"""A set that is larger is sent in parts of about this size."""

MAX_LAUNCHES: Final = 10_000
"""Launches in a hello: those that run, and those that ended and are not acknowledged."""

MAX_SPAN_S: Final = 10 * 366 * 86400
"""The longest duration that is taken."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How large a field may be; 0 is no bound of this kind."""

    size: int = 0
    """Bytes of a text (in UTF-8), of a value, or of a message as a whole."""
    items: int = 0
    """Of a list or a map."""
    total: int = 0
    """Bytes of all items together: senders of messages divide them into parts."""
    whole: bool = False
    """Whether it cannot be cut."""
    least: int | None = None
    """The least number."""
    most: int | None = None
    """The greatest number."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A field that is beyond its bound."""

    left: str
    """What is left of it where it is cut."""
    error: InvalidArgument
    """What is wrong with it, for a sender that is refused."""

    def __str__(self) -> str:
        """Return what was cut, as a sentence without an end."""
        return f"{self.error.field}: {self.left}"


_UNCUT: Final = frozenset({"Assignment", "CarriedRecipe", "Certificate"})
"""Half of what these hold is nothing."""

_DURATION: Final = "google.protobuf.Duration"

_MOST_SAID: Final = 8
"""Fields that are named where many are beyond their bounds."""

_Cutter = Callable[[Any, str, list[Excess]], None]


def cut(message: Message) -> list[str]:
    """Cut a message's fields to their bounds; return what was cut, as sentences without an end."""
    found = _cut(message)
    said = [str(each) for each in found[:_MOST_SAID]]
    return [*said, f"{len(found) - _MOST_SAID} more"] if len(found) > _MOST_SAID else said


def refuse(message: Message) -> None:
    """Raise InvalidArgument where fields of a message are beyond their bounds: it names them, and their values."""
    if found := _cut(message):
        raise InvalidArgument.joined([each.error for each in found[:_MOST_SAID]])


def excess(message: Message) -> list[str]:
    """Return which fields of a message are too large and cannot be cut."""
    found = []
    for field in message.DESCRIPTOR.fields:
        bound = bound_of(field)
        if bound is None or not bound.whole:
            continue
        value = getattr(message, field.name)
        size = value.ByteSize() if field.message_type is not None else len(_encoded(value))
        if size > bound.size:
            found.append(f"{field.name}: {size} bytes, at most {bound.size} are allowed")
    return found


@cache
def bound_of(field: FieldDescriptor) -> Bound | None:
    """Return a field's bound; None where its type is bounded already."""
    rules = field.GetOptions().Extensions[annotations_pb2.rules]
    if not rules.ByteSize():
        return None
    assert field.containing_type is not None
    return Bound(
        rules.max_bytes,
        rules.max_items,
        rules.max_total_bytes,
        whole=bool(rules.max_bytes) and field.containing_type.name in _UNCUT,
        least=rules.minimum if rules.HasField("minimum") else None,
        most=rules.maximum if rules.HasField("maximum") else None,
    )


def bound(message: str, field: str) -> Bound:
    """Return the bound of a field that has one, as ``bound("LogPart", "lines")``."""
    found = bound_of(agent_pb2.DESCRIPTOR.pool.FindFieldByName(f"{PACKAGE}{message}.{field}"))
    assert found is not None
    return found


def cut_text(text: str, size: int) -> str:
    """Return a text in at most ``size`` bytes; what was cut is marked."""
    if len(text) * 4 <= size:
        return text
    encoded = _encoded(text)
    if len(encoded) <= size:
        return text
    return encoded[: size - len(CUT.encode())].decode(errors="ignore") + CUT


def _cut(message: Message) -> list[Excess]:
    found: list[Excess] = []
    for each in _cutters(message.DESCRIPTOR):
        each(message, "", found)
    return found


@cache
def _cutters(descriptor: Descriptor) -> tuple[_Cutter, ...]:
    return tuple(each for field in descriptor.fields for each in _cutters_of(field))


def _cutters_of(field: FieldDescriptor) -> list[_Cutter]:
    bound, name, inner = bound_of(field), field.name, field.message_type
    if bound is not None and bound.whole:
        return []
    if inner is not None and inner.GetOptions().map_entry:
        return [] if bound is None else [_map(name, bound)]
    if inner is not None and inner.full_name == _DURATION:
        return [_span(name)]
    if inner is not None:
        found = [_items(name, bound.items)] if bound is not None and bound.items else []
        within = _cutters(inner) if inner.full_name.startswith(PACKAGE) else ()
        return [*found, _within(field, within)] if within else found
    return [] if bound is None else _of_values(field, bound)


def _of_values(field: FieldDescriptor, bound: Bound) -> list[_Cutter]:
    name = field.name
    if field.full_name.endswith(".log_tail"):
        return [_tail(name, bound)]
    if field.is_repeated:
        return [_items(name, bound.items), *([_texts(name, bound)] if bound.size else [])]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return [_value(name, bound.size)]
    return [_text(name, bound.size) if bound.size else _number(field, bound)]


def _within(field: FieldDescriptor, inner: tuple[_Cutter, ...]) -> _Cutter:
    name, repeated = field.name, field.is_repeated

    def apply(message: Any, path: str, found: list[Excess]) -> None:
        if repeated:
            for index, item in enumerate(getattr(message, name)):
                for each in inner:
                    each(item, f"{path}{name}[{index}].", found)
        elif message.HasField(name):
            for each in inner:
                each(getattr(message, name), f"{path}{name}.", found)

    return apply


def _text(name: str, size: int) -> _Cutter:
    def apply(message: Any, path: str, found: list[Excess]) -> None:
        text = getattr(message, name)
        short = cut_text(text, size)
        if short is not text:
            found.append(_too_long(f"{path}{name}", size, len(_encoded(text))))
            setattr(message, name, short)

    return apply


def _value(name: str, size: int) -> _Cutter:
    def apply(message: Any, path: str, found: list[Excess]) -> None:
        value = getattr(message, name)
        if len(value) > size:
            found.append(Excess(f"0 of {len(value)} bytes", _long(f"{path}{name}", size, len(value))))
            message.ClearField(name)

    return apply


def _number(field: FieldDescriptor, bound: Bound) -> _Cutter:
    name, optional, least, most = field.name, field.has_presence, bound.least, bound.most

    def apply(message: Any, path: str, found: list[Excess]) -> None:
        value = getattr(message, name)
        if least is not None and value < least:
            kept, problem = least, f"must be at least {least} (got {value})."
        elif most is not None and value > most:
            kept, problem = most, f"must be at most {most} (got {value})."
        else:
            return
        if not optional or message.HasField(name):
            error = InvalidArgument(f"{path}{name}", problem, reason=Reason.OUT_OF_RANGE)
            found.append(Excess(f"{kept} for {value}", error))
            setattr(message, name, kept)

    return apply


def _span(name: str) -> _Cutter:
    def apply(message: Any, path: str, found: list[Excess]) -> None:
        if not message.HasField(name):
            return
        span = getattr(message, name)
        if 0 <= span.seconds <= MAX_SPAN_S and 0 <= span.nanos < 1_000_000_000:
            return
        kept = MAX_SPAN_S if span.seconds > MAX_SPAN_S else 0
        problem = f"must be from 0 to {MAX_SPAN_S} s (got {span.seconds} s and {span.nanos} ns)."
        error = InvalidArgument(f"{path}{name}", problem, reason=Reason.OUT_OF_RANGE)
        found.append(Excess(f"{kept} s for {span.seconds} s", error))
        span.seconds, span.nanos = kept, 0

    return apply


def _items(name: str, items: int) -> _Cutter:
    def apply(message: Any, path: str, found: list[Excess]) -> None:
        values = getattr(message, name)
        if len(values) > items:
            found.append(_too_many(f"{path}{name}", items, len(values)))
            del values[items:]

    return apply


def _texts(name: str, bound: Bound) -> _Cutter:
    size, total = bound.size, bound.total

    def apply(message: Any, path: str, found: list[Excess]) -> None:
        values = getattr(message, name)
        sizes = []
        for index, text in enumerate(values):
            short = cut_text(text, size)
            if short is not text:
                found.append(_too_long(f"{path}{name}[{index}]", size, len(_encoded(text))))
                values[index] = short
            sizes.append(len(_encoded(short)))
        if not total or sum(sizes) <= total:
            return
        kept, room = 0, total - len(LEFT_OUT.encode())
        while sizes[kept] <= room:
            room -= sizes[kept]
            kept += 1
        found.append(_too_large(f"{path}{name}", f"{kept} of {len(values)}", sum(sizes), total))
        del values[kept:]
        values.append(LEFT_OUT)

    return apply


def _tail(name: str, bound: Bound) -> _Cutter:
    def apply(message: Any, path: str, found: list[Excess]) -> None:
        lines = getattr(message, name)
        if not lines:
            return
        kept = bounded_tail(lines[-bound.items :])
        if kept != lines:
            size = sum(len(_encoded(line)) for line in lines)
            left = f"{len(kept)} of {len(lines)} lines"
            found.append(_too_large(f"{path}{name}", left, size, bound.total))
            lines[:] = kept

    return apply


def _map(name: str, bound: Bound) -> _Cutter:
    def apply(message: Any, path: str, found: list[Excess]) -> None:
        entries = getattr(message, name)
        if len(entries) > bound.items:
            found.append(_too_many(f"{path}{name}", bound.items, len(entries)))
            for key in sorted(entries)[bound.items :]:
                del entries[key]
        for key, value in list(entries.items()):
            short = cut_text(key, bound.size), cut_text(value, bound.size)
            if short[0] is not key or short[1] is not value:
                size = len(_encoded(key)) + len(_encoded(value))
                problem = (
                    f"has an entry of {size} bytes: a key and a value may each have at most {bound.size}. "
                    f"It is {key[:64]!r}."
                )
                error = InvalidArgument(f"{path}{name}", problem, reason=Reason.TOO_LONG)
                found.append(Excess(f"an entry of {size} bytes", error))
                del entries[key]
                entries[short[0]] = short[1]

    return apply


def _too_long(field: str, most: int, size: int) -> Excess:
    return Excess(f"{most} of {size} bytes", _long(field, most, size))


def _long(field: str, most: int, size: int) -> InvalidArgument:
    return InvalidArgument(field, f"has {size} bytes. Give at most {most}.", reason=Reason.TOO_LONG)


def _too_many(field: str, most: int, count: int) -> Excess:
    problem = f"has {count} items. Give at most {most}."
    return Excess(f"{most} of {count}", InvalidArgument(field, problem, reason=Reason.TOO_MANY))


def _too_large(field: str, left: str, size: int, most: int) -> Excess:
    problem = f"has {size} bytes in all. Give at most {most}."
    return Excess(left, InvalidArgument(field, problem, reason=Reason.TOO_LONG))


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
