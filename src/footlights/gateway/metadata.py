"""HTTP headers to gRPC metadata and back, by grpc-gateway's default matchers (``runtime/context.go``)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Final

from footlights.gateway.errors import DEADLINE_EXCEEDED, INVALID_ARGUMENT, Malformed, Refusal, go_quote
from footlights.gateway.options import Options
from footlights.gateway.scalars import decode_base64

Metadata = list[tuple[str, str | bytes]]
Headers = Sequence[tuple[bytes, bytes]]

_PERMANENT: Final = frozenset((
    b"accept", b"accept-charset", b"accept-language", b"accept-ranges", b"authorization", b"cache-control",
    b"content-type", b"cookie", b"date", b"expect", b"from", b"if-match", b"if-modified-since", b"if-none-match",
    b"if-schedule-tag-match", b"if-unmodified-since", b"max-forwards", b"origin", b"pragma", b"referer",
    b"user-agent", b"via", b"warning",
))  # fmt: skip
_PREFIX: Final = b"grpc-metadata-"
_KEY: Final = re.compile(r"[0-9a-z_.\-]+")
_TEXT: Final = re.compile(r"[\x20-\x7e]*")
_TIMEOUT_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def incoming(headers: Headers, *, peer: str, options: Options) -> Metadata:
    """The metadata of a call.

    Raises:
        Refusal: a binary header that is not base64.
    """
    metadata: Metadata = []
    forwarded_for: list[str] = []
    forwarded_host = host = ""
    passed = options.forward_headers
    for raw_name, raw_value in headers:
        if raw_name in _PERMANENT:
            value = raw_value.decode("latin1")
            if _TEXT.fullmatch(value):
                if raw_name == b"authorization":
                    metadata.append(("authorization", value))
                metadata.append((f"grpcgateway-{raw_name.decode()}", value))
        elif raw_name == b"host":
            host = raw_value.decode("latin1")
        elif raw_name == b"x-forwarded-for":
            forwarded_for.append(raw_value.decode("latin1"))
        elif raw_name == b"x-forwarded-host":
            forwarded_host = raw_value.decode("latin1")
        elif raw_name.startswith(_PREFIX):
            _add(metadata, raw_name[len(_PREFIX) :].decode("latin1"), raw_value, raw_name)
        if passed and (name := raw_name.decode("latin1")) in passed:
            _add(metadata, name, raw_value, raw_name)
    if peer:
        forwarded_for.append(peer)
    for key, value in (("x-forwarded-host", forwarded_host or host), ("x-forwarded-for", ", ".join(forwarded_for))):
        if value and _TEXT.fullmatch(value):
            metadata.append((key, value))
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


def outgoing(metadata: Iterable[tuple[str, str | bytes]], options: Options) -> list[tuple[bytes, bytes]]:
    """Response headers from a call's initial metadata."""
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
            metadata.append((key, decode_base64(value, url=False, padded=len(value) % 4 == 0)))
        except Malformed as error:
            name = "-".join(part.capitalize() for part in raw_name.decode("latin1").split("-"))
            raise Refusal(
                INVALID_ARGUMENT,
                f"invalid binary header {name}: {error.reference}",
                plain=f"header {name}: {go_quote(value)} is not base64",
                reason="INVALID_HEADER",
                field=name,
            ) from None
    elif _TEXT.fullmatch(value):
        metadata.append((key, value))
