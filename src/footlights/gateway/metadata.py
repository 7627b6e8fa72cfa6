"""HTTP headers to gRPC metadata and back, by grpc-gateway's default matchers (``runtime/context.go``)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Final, NamedTuple

from footlights.gateway.errors import DEADLINE_EXCEEDED, INVALID_ARGUMENT, Malformed, Refusal, go_quote
from footlights.gateway.options import Options
from footlights.gateway.scalars import decode_base64


class Entry(NamedTuple):
    """An entry of metadata that gRPC can carry, with grpc's names: checked where it is made."""

    key: str
    value: str | bytes


Metadata = list[Entry]
Headers = Sequence[tuple[bytes, bytes]]

_PERMANENT: Final = {name: f"grpcgateway-{name.decode()}" for name in (
    b"accept", b"accept-charset", b"accept-language", b"accept-ranges", b"authorization", b"cache-control",
    b"content-type", b"cookie", b"date", b"expect", b"from", b"if-match", b"if-modified-since", b"if-none-match",
    b"if-schedule-tag-match", b"if-unmodified-since", b"max-forwards", b"origin", b"pragma", b"referer",
    b"user-agent", b"via", b"warning",
)}  # fmt: skip
_AUTHORIZATION: Final = "grpcgateway-authorization"
_SETTLED: Final = frozenset(("x-request-id", "x-forwarded-for", "x-forwarded-host"))
_PREFIX: Final = b"grpc-metadata-"
_KEY: Final = re.compile(r"[0-9a-z_.\-]+")
_TIMEOUT_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Incoming:
    """Makes a call's metadata of a request's headers.

    Args:
        options: which headers pass under their own name.
    """

    def __init__(self, options: Options) -> None:
        self._passed = {name.encode("latin1"): name for name in options.forward_headers}
        self._strict = options.strict

    def __call__(self, headers: Headers, *, peer: str, request_id: str = "") -> Metadata:
        """The metadata; ``request_id``, where one was settled on, stands for whatever the client sent.

        Raises:
            Refusal: a binary header that is not base64.
        """
        metadata: Metadata = []
        forwarded_for, host = "", ""
        passed = self._passed
        for raw_name, raw_value in headers:
            prefixed = _PERMANENT.get(raw_name)
            if prefixed is not None:
                value = raw_value.decode("latin1")
                if value.isascii() and value.isprintable():
                    if prefixed == _AUTHORIZATION:
                        metadata.append(Entry("authorization", value))
                    metadata.append(Entry(prefixed, value))
            elif raw_name == b"host":
                host = host or raw_value.decode("latin1")
            elif raw_name == b"x-forwarded-for":
                forwarded_for += raw_value.decode("latin1") + ", "
            elif raw_name == b"x-forwarded-host":
                host = raw_value.decode("latin1")
            elif raw_name[:14] == _PREFIX:
                _add(metadata, raw_name[14:].decode("latin1"), raw_value, raw_name)
            if raw_name in passed:
                _add(metadata, passed[raw_name], raw_value, raw_name)
        forwarded_for = forwarded_for + peer if peer else forwarded_for.removesuffix(", ")
        if self._strict and len(metadata) and any(key in _SETTLED for key, _ in metadata):
            # What the gateway vouches for is not for clients to say.
            metadata = [entry for entry in metadata if entry.key not in _SETTLED]
        if host and host.isascii() and host.isprintable():
            metadata.append(Entry("x-forwarded-host", host))
        if forwarded_for and forwarded_for.isascii() and forwarded_for.isprintable():
            metadata.append(Entry("x-forwarded-for", forwarded_for))
        if request_id:
            metadata.append(Entry("x-request-id", request_id))
        return metadata


def timeout(value: str | None, options: Options) -> float | None:
    """Seconds that a call may take: Grpc-Timeout, else the default; never above the maximum.

    Raises:
        Refusal: a Grpc-Timeout that does not parse, or one that has passed.
    """
    seconds = options.default_timeout_s
    if value is not None:
        found = re.fullmatch(r"([+-]?[0-9]{1,19})([HMSmun])", value)
        if found is None:
            raise Refusal(
                INVALID_ARGUMENT,
                f"invalid grpc-timeout: {value}",
                plain=f"Grpc-Timeout: {go_quote(value)} is not a number with one of the units H M S m u n",
                reason="INVALID_HEADER",
                field="grpc-timeout",
            )
        asked = int(found.group(1)) * _TIMEOUT_UNITS[found.group(2)]
        if asked < 0:
            raise Refusal(DEADLINE_EXCEEDED, "context deadline exceeded", reason="DEADLINE_EXCEEDED")
        seconds = asked or seconds
    if options.max_timeout_s is not None and (seconds is None or seconds > options.max_timeout_s):
        return options.max_timeout_s if seconds is not None or value is not None else seconds
    return seconds


def outgoing(metadata: Sequence[tuple[str, str | bytes]], options: Options) -> list[tuple[bytes, bytes]]:
    """Response headers from a call's initial metadata."""
    if not metadata:
        return []
    headers = []
    for key, value in metadata:
        text = b64encode(value) if isinstance(value, bytes) else value.encode("latin1", "replace")
        name = key if key in options.expose_headers else f"grpc-metadata-{key}"
        headers.append((name.encode("latin1"), text))
    return headers


def _add(metadata: Metadata, key: str, raw_value: bytes, raw_name: bytes) -> None:
    key = key.lower()
    if not _KEY.fullmatch(key) or key.startswith("grpc-"):
        return
    value = raw_value.decode("latin1")
    if key.endswith("-bin"):
        try:
            metadata.append(Entry(key, decode_base64(value, url=False, padded=len(value) % 4 == 0)))
        except Malformed as error:
            name = "-".join(part.capitalize() for part in raw_name.decode("latin1").split("-"))
            raise Refusal(
                INVALID_ARGUMENT,
                f"invalid binary header {name}: {error.reference}",
                plain=f"header {name}: {go_quote(value)} is not base64",
                reason="INVALID_HEADER",
                field=name,
            ) from None
    elif value.isascii() and value.isprintable():
        metadata.append(Entry(key, value))
