"""Comments by full name, from the source info of a descriptor set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHILDREN: Final[Mapping[str, dict[int, tuple[str, str]]]] = {
    "file": {4: ("message", "message_type"), 5: ("enum", "enum_type"), 6: ("service", "service")},
    "message": {2: ("field", "field"), 3: ("message", "nested_type"), 4: ("enum", "enum_type")},
    "enum": {2: ("value", "value")},
    "service": {2: ("method", "method")},
}


def comments(descriptor_set: bytes) -> dict[str, str]:
    """Leading comments, or else trailing ones, as Markdown; empty without source info.

    Lines of a paragraph are joined, lists and blank lines kept.
    """
    found: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(descriptor_set).file:
        for location in file.source_code_info.location:
            text = location.leading_comments or location.trailing_comments
            name = _name(file, list(location.path)) if text else None
            if name is not None:
                found[name] = _text(text)
    return found


def _name(file: FileDescriptorProto, path: list[int]) -> str | None:
    """The full name of what a location's path leads to; None for what has none here."""
    if not path or len(path) % 2:
        return None
    kind, at, name = "file", file, file.package
    node: Any = at
    for number, index in zip(path[::2], path[1::2], strict=True):
        step = _CHILDREN.get(kind, {}).get(number)
        if step is None:
            return None
        kind = step[0]
        node = getattr(node, step[1])[index]
        name = f"{name}.{node.name}" if name else node.name
    return name


def _text(comment: str) -> str:
    paragraphs, lines = [], [line[1:] if line.startswith(" ") else line for line in comment.rstrip().split("\n")]
    current: list[str] = []
    for line in lines:
        if not line.strip():
            paragraphs.append("\n".join(current))
            current = []
        elif current and not re.match(r"\s*(?:[-*|]|[0-9]+\.|    )", line):
            current[-1] += " " + line.strip()
        else:
            current.append(line.rstrip())
    paragraphs.append("\n".join(current))
    text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    # AIP's behaviour words (AIP-203) are part of the schema itself.
    return re.sub(r"^(?:(?:Required|Optional|Output only|Input only|Immutable)\.\s*)+", "", text)
