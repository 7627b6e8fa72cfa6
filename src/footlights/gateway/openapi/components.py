"""Schemas by reference: what is referred to is collected under a name that stays the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from google.protobuf.descriptor import Descriptor

Schema = dict[str, Any]


class Components:
    """The schemas of a document.

    Args:
        answered: full names of the messages that answers hold; in requests they have the suffix ``Input``.
    """

    def __init__(self, answered: Collection[str] = ()) -> None:
        self.schemas: dict[str, Schema] = {}
        self._answered = answered
        self._names: dict[str, str] = {}

    def refer(self, full_name: str, build: Callable[[], Schema], *, given: bool = False) -> Schema:
        """A reference to a type's schema, which is built at the first one.

        Args:
            full_name: the type's.
            build: makes the schema.
            given: whether it is a message as requests have it.
        """
        name = self._name(full_name, "Input" if given and full_name in self._answered else "")
        if name not in self.schemas:
            self.schemas[name] = {}  # so that a type which contains itself ends here
            self.schemas[name] = build()
        return {"$ref": f"#/components/schemas/{name}"}

    def resolve(self, schema: Schema) -> Schema:
        """What a schema refers to, or the schema itself."""
        reference = schema.get("$ref", "")
        return self.schemas[reference.rpartition("/")[2]] if reference else schema

    def _name(self, full_name: str, suffix: str) -> str:
        """The shortest unique end of a full name that starts with a type."""
        found = self._names.get(full_name + suffix)
        if found is None:
            parts = full_name.split(".")
            first = next((i for i, part in enumerate(parts) if re.match("[A-Z]", part)), len(parts) - 1)
            found = ".".join(parts[first:]) + suffix
            if found in self._names.values():
                found = full_name + suffix
            self._names[full_name + suffix] = found
        return found


def reachable(messages: Iterable[Descriptor]) -> set[str]:
    """Full names of messages and of all messages in them."""
    found: set[str] = set()
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found.add(message.full_name)
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return found
