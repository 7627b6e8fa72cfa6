"""Where one JSON value ends and the next begins, in bytes that come in pieces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK: Final = re.compile(rb'["{}\[\]\\]|[ \t\r\n]+')
_STRING_MARK: Final = re.compile(rb'["\\]')
_BLANK: Final = b" \t\r\n"


class Splitter:
    """Cuts concatenated or white-space separated JSON values apart; the message reader checks each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._at = 0
        self._depth = 0
        self._in_string = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The values that ``chunk`` completes.

        Raises:
            GatewayError: a value exceeds the limit.
        """
        self._buffer += chunk
        while (end := self._end()) is not None:
            value = bytes(self._buffer[:end]).strip(_BLANK)
            del self._buffer[:end]
            self._at, self._depth, self._in_string = 0, 0, False
            if value:
                self._check(len(value))
                yield value
        self._check(len(self._buffer))

    def finish(self) -> Iterator[bytes]:
        """What is left when the body has ended: the last value, whole or not."""
        rest = bytes(self._buffer).strip(_BLANK)
        self._buffer.clear()
        if rest:
            yield rest

    def _check(self, size: int) -> None:
        if size > self._limit:
            message = f"a message of the stream must have at most {self._limit} bytes."
            raise GatewayError(INVALID_ARGUMENT, message, http_status=413, reason="BODY_TOO_LARGE", field="body")

    def _end(self) -> int | None:
        """The end of the first whole value in the buffer; remembers how far it has looked."""
        buffer = self._buffer
        while True:
            found = (_STRING_MARK if self._in_string else _MARK).search(buffer, self._at)
            if found is None:
                self._at = len(buffer)
                return None
            mark, at = found.group(), found.end()
            if mark == b"\\":
                if at == len(buffer):
                    self._at = found.start()
                    return None
                self._at = at + 1
                continue
            self._at = at
            if mark == b'"':
                self._in_string = not self._in_string
                if not self._in_string and self._depth == 0:
                    return at
                if self._in_string and self._depth == 0 and buffer[: found.start()].strip(_BLANK):
                    self._in_string = False
                    return found.start()
            elif mark in (b"{", b"["):
                if self._depth == 0 and buffer[: found.start()].strip(_BLANK):
                    return found.start()
                self._depth += 1
            elif mark in (b"}", b"]"):
                self._depth -= 1
                if self._depth <= 0:
                    return at
            elif self._depth == 0 and buffer[: found.start()].strip(_BLANK):
                return found.start()
