"""Request headers that carry fields of the request, and the type of its body.

A field says by the rule ``header`` which one carries it beside the body and the query. Strict mode refuses the
conditions of a client that a call cannot keep, because a client that sends one relies on it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldOptions, MethodOptions

from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError, quoted
from footlights.gateway.routing.binding import Binding, BindingError
from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

IF_MATCH: Final = b"if-match"
IDEMPOTENCY_KEY: Final = b"idempotency-key"
ENTITY_TAGS: Final = frozenset((IF_MATCH, b"etag"))
"""Headers whose values are quoted (RFC 9110, section 8.8.3) and bare in the field."""

ENTITY_TAG: Final = re.compile(rb"[\x21\x23-\x7e]+")
"""What may be in the quotes; other bytes than ASCII no client should need."""
PRINTABLE: Final = re.compile(rb"[\x20-\x7e]+")
"""What any other header that carries a field may have."""

JSON_TYPES: Final = frozenset((None, b"application/json", b"application/json; charset=utf-8"))
"""Content types of JSON as most clients write them, and none at all."""

_CONDITIONS: Final = (IF_MATCH, IDEMPOTENCY_KEY, b"if-none-match", b"if-unmodified-since")
_HARMLESS_ON_READS: Final = frozenset(_CONDITIONS[1:])
"""A read without them gives an answer that is as right."""


class HeaderFields:
    """The headers that one binding reads or refuses."""

    def __init__(self, binding: Binding, *, strict: bool) -> None:
        rpc = binding.rpc
        fields = {} if rpc.client_streaming else fields_by_header(rpc.input_type)
        self._fields = {name: field.name for name, field in fields.items()}
        refused: list[bytes] = []
        if strict:
            method = MethodOptions.FromString(rpc.GetOptions().SerializeToString())
            reads = binding.http_method == "GET" or method.idempotency_level == MethodOptions.NO_SIDE_EFFECTS
            refused = [
                name for name in _CONDITIONS if name not in fields and not (reads and name in _HARMLESS_ON_READS)
            ]
        self.names = (*fields, *refused)
        """Those to look for, in lower case."""
        self.has_precondition = IF_MATCH in fields
        """Whether If-Match carries a field."""

    def read(
        self, message: Message | None, by_name: Mapping[bytes, bytes], headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Fill the fields of a request that has been read otherwise; None where there is not just one request.

        Args:
            message: The request.
            by_name: The first value of each header.
            headers: All headers, in order.

        Raises:
            GatewayError: A header that is refused, is no such value, or differs from the field.
        """
        for name in self.names:
            value = by_name.get(name)
            if value is None:
                continue
            title = _title(name)
            field = self._fields.get(name)
            if field is None or message is None:
                raise _refused(title, "has no effect on this call; leave it out.", "HEADER_NOT_SUPPORTED")
            if sum(found == name for found, _ in headers) > 1:
                raise _refused(title, "is given more than once; give it once.")
            text = _entity_tag(title, value) if name in ENTITY_TAGS else _text(title, value)
            given = getattr(message, field)
            if given and given != text:
                raise GatewayError(
                    INVALID_ARGUMENT, f"{field} is {quoted(given)}, but {title} has {quoted(text)}; send one of them.",
                    field=field, reason="VALUE_CONFLICT",
                )  # fmt: skip
            setattr(message, field, text)


def fields_by_header(message: Descriptor) -> dict[bytes, FieldDescriptor]:
    """Return the fields of a message that a header carries, by its name in lower case.

    Raises:
        BindingError: One of them is not a string.
    """
    found: dict[bytes, FieldDescriptor] = {}
    for field in message.fields:
        # Through bytes: descriptors of another pool carry options of that pool's classes.
        rules = FieldOptions.FromString(field.GetOptions().SerializeToString()).Extensions[annotations_pb2.rules]
        if rules.header:
            if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
                raise BindingError(f"{field.full_name}: a field with a header must be a string")
            found[rules.header.lower().encode("ascii")] = field
    return found


def check_media_type(by_name: Mapping[bytes, bytes], *, streamed: bool = False) -> None:
    """Refuse a body that is not JSON; one without a type is taken for JSON.

    Args:
        by_name: The first value of each header.
        streamed: The body may also be lines of JSON.

    Raises:
        GatewayError: 415.
    """
    given = by_name.get(b"content-type")
    if given in JSON_TYPES:
        return
    media_type = given.partition(b";")[0].strip().lower() if given else b""
    if media_type == b"application/json" or (streamed and media_type == b"application/x-ndjson"):
        return
    raise GatewayError(
        INVALID_ARGUMENT,
        f"Content-Type must be application/json (got {quoted((given or b'').decode('latin1'))}).",
        http_status=415, reason="UNSUPPORTED_MEDIA_TYPE", headers=[("accept", "application/json")],
    )  # fmt: skip


def _entity_tag(title: str, value: bytes) -> str:
    value = value.strip()
    if value == b"*":
        return "*"
    if value[:1] == value[-1:] == b'"' and ENTITY_TAG.fullmatch(value[1:-1]):
        return value[1:-1].decode("ascii")
    if value.startswith(b"W/"):
        wanted = "a strong entity tag, without W/"
    elif value.count(b'"') > 2 or b"," in value:
        wanted = "one entity tag, not a list"
    else:
        wanted = 'an entity tag in quotes, as "1a2b", or *'
    raise _refused(title, f"must be {wanted} (got {quoted(value.decode('latin1'))}).")


def _text(title: str, value: bytes) -> str:
    value = value.strip()
    if not PRINTABLE.fullmatch(value):
        raise _refused(title, f"must be printable ASCII text (got {quoted(value.decode('latin1'))}).")
    return value.decode("ascii")


def _title(name: bytes) -> str:
    return "-".join(part.capitalize() for part in name.decode("latin1").split("-"))


def _refused(title: str, problem: str, reason: str = "INVALID_HEADER") -> GatewayError:
    return GatewayError(INVALID_ARGUMENT, f"{title} {problem}", field=title, reason=reason)
