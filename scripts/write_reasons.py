"""Write what `scripts/generate` makes of the enum ErrorReason: the names for Python, and the reference for people.

Usage: write_reasons.py DESCRIPTOR_SET PYTHON_FILE MARKDOWN_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FILE = "footlights/v1/error_reason.proto"

PYTHON = '''"""Generated from error_reason.proto by scripts/generate. DO NOT EDIT!"""

from enum import StrEnum


class Reason(StrEnum):
    """The values of the enum ErrorReason: what ErrorInfo.reason can be."""

{names}
'''

MARK = "<!-- What follows is written by scripts/generate from error_reason.proto. -->\n"
TABLE = """
| Reason | Code | HTTP | Metadata keys | Meaning |
|---|---|---|---|---|
{rows}
"""
PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
"""The page for people: what is above the mark is written by hand."""


def main(descriptor_set: str, python: str, markdown: str) -> None:
    """Write both files."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(descriptor_set).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.Add(each)  # type: ignore[no-untyped-call]
    source = next(each for each in files.file if each.name == FILE)
    comments = {tuple(at.path): " ".join(at.leading_comments.split()) for at in source.source_code_info.location}
    options_type = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.EnumValueOptions"))
    info: Any = pool.FindExtensionByName("footlights.v1.reason_info")
    names, rows = [], []
    for index, value in enumerate(source.enum_type[0].value):
        if value.number == 0:
            continue
        options: Any = options_type.FromString(value.options.SerializeToString())
        found = options.Extensions[info]
        keys = ", ".join(f"`{key}`" for key in found.metadata_keys)
        names.append(f'    {value.name} = "{value.name}"')
        rows.append(f"| {value.name} | {found.code} | {found.http_status} | {keys} | {comments[5, 0, 2, index]} |")
    Path(python).write_text(PYTHON.format(names="\n".join(names)))
    by_hand = PAGE.read_text().partition(MARK)[0]
    Path(markdown).write_text(by_hand + MARK + TABLE.format(rows="\n".join(rows)))


if __name__ == "__main__":
    main(*sys.argv[1:])
