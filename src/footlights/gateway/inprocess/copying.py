"""How a message crosses: as a copy that is what serialising and parsing would have made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


def pack(message: Any, serialize: Serializer) -> Any:
    """What is on its way: a copy where the message's own class serialises it, else bytes.

    Raises:
        TypeError: the serializer does not take such a message, or gives no bytes; as over the wire.
    """
    if isinstance(message, Message) and serialize == type(message).SerializeToString:
        return message.__deepcopy__({})
    data = message if serialize is None else serialize(message)
    if not isinstance(data, bytes):
        raise TypeError(f"a serializer gave {type(data).__name__}, not bytes")
    return data


def unpack(packed: Any, deserialize: Deserializer) -> Any:
    """What the receiver gets of it."""
    if isinstance(packed, Message):
        own = getattr(deserialize, "__self__", None) is type(packed)
        if own and getattr(deserialize, "__name__", "") == "FromString":
            return packed
        packed = packed.SerializeToString()
    return packed if deserialize is None else deserialize(packed)
