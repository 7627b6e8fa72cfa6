"""The codec against ``json_format``, led by coverage: ``python -m tests.gateway.fuzz_codec {from,to} [OPTION …]``.

``from``: bytes are a body. What both the reader and json_format take they read alike. ``to``: bytes are a message. What
is printed is what json_format prints, and reads back as the message. Anything that is raised except a refusal is a
finding; libFuzzer prints the input.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import atheris  # type: ignore[import-untyped, unused-ignore]

with atheris.instrument_imports(include=["footlights.gateway"]):
    from footlights.gateway.decode.json_scalars import MemberError
    from footlights.gateway.decode.message_reader import STRICT
    from footlights.gateway.encode.writer import WriteError, Writer
    from footlights.gateway.errors import GatewayError

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from tests.conformance.echo import message, service
from tests.gateway.test_message_reader import as_float32, by_json_format, same, without_nulls

NEGATIVE_ZERO = re.compile(r"-0(?![.0-9])")
WRITER = Writer(pools=[service().file.pool])


def from_json(data: bytes) -> None:
    """One body."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    ours, theirs = message("Everything")(), message("Everything")()
    try:
        STRICT.read_text(text, ours)
    except (MemberError, GatewayError):
        return
    try:
        json_format.Parse(text, theirs, descriptor_pool=service().file.pool)
    except (json_format.ParseError, RecursionError):
        return
    # Go takes the blanks off a mask before it splits it; json_format makes paths of them. And where a double is wanted
    # -0 is negative for Go, as -0.0 is; json_format makes an integer of it, which has no sign.
    explained = "updateMask" in text or "update_mask" in text or NEGATIVE_ZERO.search(text)
    assert same(ours, theirs) or explained, f"json_format reads {theirs}"


def to_json(data: bytes) -> None:
    """One message."""
    found: Any = message("Everything")()
    try:
        found.ParseFromString(data)
    except DecodeError:
        return
    try:
        wanted = by_json_format(found)
    except (json_format.SerializeToJsonError, DecodeError, ValueError, TypeError, OverflowError, RecursionError):
        return
    try:
        text = WRITER.write(found)
    except WriteError as error:
        # As Go does, where json_format prints masks of anything and values of nothing.
        if any(name in str(error) for name in ("FieldMask", "protobuf.Value", "protobuf.Any")):
            return
        raise AssertionError(f"json_format prints it: {wanted}") from error
    assert as_float32(without_nulls(json.loads(text))) == as_float32(without_nulls(wanted))


def main() -> None:
    """Fuzz until libFuzzer's options say to stop."""
    target = {"from": from_json, "to": to_json}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
