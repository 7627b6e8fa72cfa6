"""Partial updates: which members of a resource a request changes, and the change itself (AIP-134, AIP-161).

The paths of a mask are members (``limits``), members of members (``limits.max_duration``) and keys of maps
(``labels.team``, ``labels.`a.b` ``). What a path names is set to what the request's resource has there, and cleared
where it has nothing. An empty mask stands for all members that the request's resource has, except for those that only
answers have (OUTPUT_ONLY, AIP-203): what was read can be changed and written back as it is. A mask that names one of
those is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.api import field_behavior_pb2

from footlights import errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.field_mask_pb2 import FieldMask
    from google.protobuf.message import Message

MASK = "update_mask"


def apply(
    current: Message, given: Message, mask: FieldMask, *, mutable: Collection[str], identity: Collection[str]
) -> list[str]:
    """Change a resource as a request asks for, and return the paths that it names.

    Args:
        current: The resource as it is, which is changed.
        given: The resource of the request.
        mask: The mask of the request.
        mutable: The members that can be changed, with all that is inside them.
        identity: The members that say which resource it is: they may be named and change nothing.

    Raises:
        InvalidArgument: A path that does not exist, or that cannot be changed.
    """
    named = mask.paths or (path for path in _present(given, "") if not _holds_some(path, mutable))
    paths = sorted({path for path in named if path not in identity})
    for path in paths:
        _check(path, _descriptor(current), mutable)
    for path in paths:
        _copy(path, given, current)
    return paths


def names(paths: Sequence[str], member: str) -> bool:
    """Return whether any of the paths is a member or inside it."""
    return any(path == member or path.startswith(f"{member}.") for path in paths)


def _present(message: Message, prefix: str) -> Iterator[str]:
    """Return the paths of what a message has that is not output only: leaves, and whole lists and maps."""
    for field, value in message.ListFields():
        path = prefix + field.name
        if field_behavior_pb2.OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]:
            continue
        if _has_members(field) and value.ListFields():
            yield from _present(value, f"{path}.")
        else:
            yield path


def _holds_some(path: str, mutable: Collection[str]) -> bool:
    """Return whether only some members of a member can be changed: then its being there says nothing."""
    return any(each.startswith(f"{path}.") for each in mutable)


def _check(path: str, descriptor: Descriptor, mutable: Collection[str]) -> None:
    field: FieldDescriptor | None = None
    inside: Descriptor | None = descriptor
    parts = path.split(".")
    for place, part in enumerate(parts):
        if field is not None and _is_map(field):
            # Everything after the map's name is one key.
            if not _key(".".join(parts[place:])):
                raise _refused(path, "names no key of the map", errors.Reason.UNKNOWN_FIELD)
            break
        field = inside.fields_by_name.get(part) if inside is not None else None
        if field is None:
            known = sorted(inside.fields_by_name) if inside is not None else []
            choice = f"; choose from {', '.join(known)}" if known else ", nor has it members"
            raise _refused(path, f"is not a member of {descriptor.name}{choice}", errors.Reason.UNKNOWN_FIELD)
        inside = field.message_type if _has_members(field) else None
    if not any(path == each or path.startswith(f"{each}.") for each in mutable):
        raise _refused(
            path, f"cannot be changed; choose from {', '.join(sorted(mutable))}", errors.Reason.FIELD_IMMUTABLE
        )


def _copy(path: str, given: Message, current: Message) -> None:
    name, _, rest = path.partition(".")
    field = _descriptor(current).fields_by_name[name]
    if not rest:
        current.ClearField(name)
        if field.has_presence and not given.HasField(name):
            return
        value: Any = getattr(given, name)
        if _is_map(field):
            _fill(field, getattr(current, name), value)
        elif field.is_repeated:
            getattr(current, name).extend(value)
        elif field.message_type is not None:
            getattr(current, name).CopyFrom(value)
        else:
            setattr(current, name, value)
    elif _is_map(field):
        key = _key(rest)
        getattr(current, name).pop(key, None)
        if key in getattr(given, name):
            _fill(field, getattr(current, name), {key: getattr(given, name)[key]})
    else:
        _copy(rest, getattr(given, name), getattr(current, name))


def _fill(field: FieldDescriptor, into: Any, items: Mapping[Any, Any]) -> None:
    assert field.message_type is not None
    nested = field.message_type.fields_by_name["value"].message_type is not None
    for key, value in items.items():
        if nested:
            into[key].CopyFrom(value)
        else:
            into[key] = value


def _descriptor(message: Message) -> Descriptor:
    # Messages have the type of either of protobuf's implementations.
    found: Any = message.DESCRIPTOR
    descriptor: Descriptor = found
    return descriptor


def _is_map(field: FieldDescriptor) -> bool:
    return field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry


def _has_members(field: FieldDescriptor) -> bool:
    """Return whether a path may go on inside a field: not inside a time, a list or an element of a list."""
    kind = field.message_type
    return kind is not None and not field.is_repeated and not kind.full_name.startswith("google.")


def _key(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == "`" else text


def _refused(path: str, problem: str, reason: errors.Reason) -> errors.InvalidArgument:
    return errors.InvalidArgument(MASK, f"{path!r} {problem}.", reason=reason)
