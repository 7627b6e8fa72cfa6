"""HTTP headers to gRPC metadata and back, by grpc-gateway's default matchers (``runtime/context.go``)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from footlights.gateway.decode.text_scalars import decode_base64
from footlights.gateway.errors import DEADLINE_EXCEEDED, INVALID_ARGUMENT, GatewayError, Malformed, quoted

if TYPE_CHECKING:
    from footlights.gateway.options import Options


MetadataEntry = tuple[str, str | bytes]
"""A key and a value that gRPC can carry; checked where it is made."""

Metadata = list[MetadataEntry]
Headers = Sequence[tuple[bytes, bytes]]

_PERMANENT: Final = {name: f"grpcgateway-{name.decode()}" for name in (
    b"accept", b"accept-charset", b"accept-language", b"accept-ranges", b"authorization", b"cache-control",
    b"content-type", b"cookie", b"date", b"expect", b"from", b"if-match", b"if-modified-since", b"if-none-match",
    b"if-schedule-tag-match", b"if-unmodified-since", b"max-forwards", b"origin", b"pragma", b"referer",
    b"user-agent", b"via", b"warning",
)}  # fmt: skip
_AUTHORIZATION: Final = "grpcgateway-authorization"
_SET_BY_GATEWAY: Final = frozenset(("x-request-id", "x-forwarded-for", "x-forwarded-host"))
_PREFIX: Final = b"grpc-metadata-"
_MOST_KNOWN: Final = 1000
_LONGEST_KNOWN: Final = 2048
_KEY: Final = re.compile(r"[0-9a-z_.\-]+")
_TIMEOUT_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Incoming:
    """Makes a call's metadata of a request's headers.

    Args:
        options: The gateway's.
        is_special: Whether headers, by name, have a meaning for the gateway itself.
    """

    def __init__(self, options: Options, is_special: Callable[[Mapping[bytes, bytes]], bool]) -> None:
        self._passed = {name.encode("latin1"): name for name in options.forward_headers}
        self._strict, self._is_special = options.strict, is_special
        self._known: dict[tuple[object, ...], Sequence[MetadataEntry]] = {}
        """Metadata of header blocks, without their request ids: a client sends the same block many times."""

    def __call__(
        self, headers: Headers, by_name: Mapping[bytes, bytes], peer: str, request_id: str = ""
    ) -> tuple[Metadata, bool]:
        """Return the metadata, and whether the headers are special.

        ``request_id``, where there is one, replaces what the client sent.

        Args:
            headers: All headers, in order.
            by_name: The first value of each.
            peer: The client's address; empty where the server does not know it.
            request_id: The id of the request, for metadata.

        Raises:
            GatewayError: A binary header that is not base64.
        """
        block = {**by_name, b"x-request-id": b""} if request_id else by_name
        key = (peer, *block, *block.values())
        is_plain = len(by_name) == len(headers)
        found = self._known.get(key) if is_plain else None
        special = False
        if found is None:
            special = self._is_special(by_name)
            found = self._metadata([h for h in headers if not request_id or h[0] != b"x-request-id"], peer)
            # Special ones are mostly single: an idempotency key, an entity tag.
            if is_plain and not special and sum(map(len, by_name.values())) <= _LONGEST_KNOWN:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[key] = found
        return [*found, ("x-request-id", request_id)] if request_id else [*found], special

    def _metadata(self, headers: Headers, peer: str) -> Metadata:
        metadata: Metadata = []
        forwarded_for, host = "", ""
        for name, value in headers:
            if name == b"host":
                host = host or value.decode("latin1")
            elif name == b"x-forwarded-for":
                forwarded_for += value.decode("latin1") + ", "
            elif name == b"x-forwarded-host":
                host = value.decode("latin1")
            metadata += self._entries(name, value)
        forwarded_for = forwarded_for + peer if peer else forwarded_for.removesuffix(", ")
        for key, text in (("x-forwarded-host", host), ("x-forwarded-for", forwarded_for)):
            if text and text.isascii() and text.isprintable():
                metadata.append((key, text))
        return metadata

    def _entries(self, raw_name: bytes, raw_value: bytes) -> Metadata:
        found: Metadata = []
        prefixed = _PERMANENT.get(raw_name)
        if prefixed is not None:
            value = raw_value.decode("latin1")
            if value.isascii() and value.isprintable():
                if prefixed == _AUTHORIZATION:
                    found.append(("authorization", value))
                found.append((prefixed, value))
        elif raw_name[:14] == _PREFIX and not (self._strict and raw_name[14:] == b"authorization"):
            # That one would be a second credential: a proxy or a log that knows of credentials looks at the first.
            _add(found, raw_name[14:].decode("latin1"), raw_value, raw_name)
        if raw_name in self._passed:
            _add(found, self._passed[raw_name], raw_value, raw_name)
        if self._strict:
            # The gateway itself sets these, so clients may not.
            found = [entry for entry in found if entry[0] not in _SET_BY_GATEWAY]
        return found


def timeout(value: str | None, options: Options) -> float | None:
    """Return how many seconds a call may take: Grpc-Timeout, else the default; at most the maximum.

    Raises:
        GatewayError: a Grpc-Timeout that does not parse, or one that has passed.
    """
    seconds = options.default_timeout_s
    if value is not None:
        found = re.fullmatch(r"([+-]?[0-9]{1,19})([HMSmun])", value)
        if found is None:
            raise GatewayError(
                INVALID_ARGUMENT,
                f"grpc-timeout must be a number with one of the units H, M, S, m, u and n (got {quoted(value)}).",
                reason="INVALID_HEADER",
                field="grpc-timeout",
            )
        asked = int(found.group(1)) * _TIMEOUT_UNITS[found.group(2)]
        if asked < 0:
            raise GatewayError(
                DEADLINE_EXCEEDED, "the deadline has passed: grpc-timeout is negative.", reason="DEADLINE_EXCEEDED"
            )
        seconds = asked or seconds
    if options.max_timeout_s is not None and (seconds is None or seconds > options.max_timeout_s):
        return options.max_timeout_s if seconds is not None or value is not None else seconds
    return seconds


class Outgoing:
    """Makes response headers of a call's initial metadata."""

    def __init__(self, options: Options) -> None:
        self._names = {key: key.encode("latin1") for key in options.expose_headers}
        # In strict mode the exchange adds the request id itself.
        self._request_id_key = "x-request-id" if options.strict and "x-request-id" in self._names else ""

    def __call__(self, metadata: Sequence[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the headers."""
        headers = []
        for key, value in metadata:
            if key == self._request_id_key:
                continue
            text = b64encode(value) if isinstance(value, bytes) else value.encode("latin1", "replace")
            headers.append((self._names.get(key) or b"grpc-metadata-" + key.encode("latin1"), text))
        return headers


def _add(metadata: Metadata, key: str, raw_value: bytes, raw_name: bytes) -> None:
    key = key.lower()
    if not _KEY.fullmatch(key) or key.startswith("grpc-"):
        return
    value = raw_value.decode("latin1")
    if key.endswith("-bin"):
        try:
            metadata.append((key, decode_base64(value, url=False, padded=len(value) % 4 == 0)))
        except Malformed:
            name = "-".join(part.capitalize() for part in raw_name.decode("latin1").split("-"))
            raise GatewayError(
                INVALID_ARGUMENT,
                f"the header {name} must be base64 (got {quoted(value)}).",
                reason="INVALID_HEADER",
                field=name,
            ) from None
    elif value.isascii() and value.isprintable():
        metadata.append((key, value))
