"""Tables of docs/api-versions.md that follow from the protos.

The comment of what is deprecated says ``Use X.``; that is what the tables say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from footlights.http.v1 import annotations_pb2 as rest
from google.protobuf.descriptor import FileDescriptor

from tests.contract import descriptors, golden

_INSTEAD = re.compile(r"(?:Output only\. |Optional\. )?(?:Not part of the published API: )?[Uu]se (.*?)[.:](?:\s|$)")


def fill(document: str) -> str:
    """Return the document with its tables as they are now."""
    tables = {
        "extensions": (["number", "option", "of"], _extensions()),
        "calls": (["what", "instead", "since", "may be missing from"], _calls()),
        "members": (["member or value", "instead"], _members()),
    }
    for name, (head, rows) in tables.items():
        begin, end = f"<!-- {name}: written by make contract -->\n", "<!-- end -->"
        before, _, found = document.partition(begin)
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
        document = "".join([before, begin, *(f"{line}\n" for line in lines), end, found.partition(end)[2]])
    return document


def instead(comment: str) -> str:
    """Return what to use instead of something deprecated, from its comment; empty if that does not say."""
    found = _INSTEAD.match(" ".join(comment.split()))
    return found.group(1) if found else ""


def deprecated() -> Iterator[str]:
    """Yield the full name of every RPC, field and enum value that is deprecated."""
    for file in descriptors.files():
        for service in file.services_by_name.values():
            yield from (method.full_name for method in service.methods if method.GetOptions().deprecated)
        yield from _deprecated_members(file)


def _extensions() -> Iterator[list[str]]:
    found = [extension for file in descriptors.files() for extension in file.extensions_by_name.values()]
    for extension in sorted(found, key=lambda extension: extension.number):
        assert extension.containing_type is not None
        yield [str(extension.number), f"`{extension.full_name}`", f"`{extension.containing_type.full_name}`"]


def _calls() -> Iterator[list[str]]:
    comments = descriptors.comments()
    for file in descriptors.files():
        dates = file.GetOptions().Extensions[rest.deprecation]
        for service in file.services_by_name.values():
            for method in service.methods:
                bindings = list(golden.bindings(method))
                kept = [f"`{verb} {path}`" for verb, path, _, old in bindings if not old]
                use = kept[0] if kept else instead(comments[method.full_name])
                gone = [f"`{method.full_name}`"] if method.GetOptions().deprecated else []
                gone += [f"`{verb} {path}`" for verb, path, _, old in bindings if old]
                yield from ([what, use, dates.since, dates.sunset] for what in gone)


def _members() -> Iterator[list[str]]:
    comments = descriptors.comments()
    for file in descriptors.files():
        for name in _deprecated_members(file):
            yield [f"`{name}`", instead(comments[name])]


def _deprecated_members(file: FileDescriptor) -> Iterator[str]:
    for message in descriptors.messages(file):
        yield from (field.full_name for field in message.fields if field.GetOptions().deprecated)
    for enum in descriptors.enums(file):
        yield from (f"{enum.full_name}.{value.name}" for value in enum.values if value.GetOptions().deprecated)
