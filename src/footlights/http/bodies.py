"""Request bodies, bounded in size and in time.

The errors say what happened and no more: each caller has its own form of answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator

    from starlette.types import Message, Receive

_T = TypeVar("_T")
_SLOWEST: Final = 1024
"""How many bytes a second a whole body must have in the long run."""


class BodyTooLarge(Exception):
    """The body has more bytes than are allowed."""


class BodyTooSlow(Exception):
    """The client paused for too long."""


async def read_body(receive: Receive, *, max_bytes: int, pause_s: float) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: it has more than ``max_bytes``.
        BodyTooSlow: a piece did not come in time, or all of them trickle for longer than ``pause_s``.
        ConnectionResetError: the client disconnected.
    """
    message: Message
    now = asyncio.get_running_loop().time
    began = now()
    reading: Coroutine[object, object, Message] = receive()  # type: ignore[assignment]  # an ASGI server's is one
    try:
        # Most bodies are there already: then one step is all, and no deadline has to be set.
        waits_for = reading.send(None)
    except StopIteration as stop:
        message = _checked(stop.value)
        body: bytes = message.get("body", b"")
        if len(body) <= max_bytes and not message.get("more_body", False):
            return body
    else:
        message = await _piece(Resumed(reading, waits_for), pause_s)
    pieces: list[bytes] = [message.get("body", b"")]
    size = len(pieces[0])
    while size <= max_bytes and message.get("more_body", False):
        message = await _piece(receive(), min(pause_s, began + pause_s + size / _SLOWEST - now()))
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
    if size > max_bytes:
        raise BodyTooLarge
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def body_pieces(receive: Receive, *, pause_s: float) -> AsyncIterator[bytes]:
    """The body piece by piece, of any size; raises as ``read_body`` does."""
    more = True
    while more:
        message = await _piece(receive(), pause_s)
        if piece := message.get("body", b""):
            yield piece
        more = message.get("more_body", False)


async def _piece(reading: Awaitable[Message], pause_s: float) -> Message:
    try:
        async with asyncio.timeout(pause_s):
            return _checked(await reading)
    except TimeoutError:
        raise BodyTooSlow from None


def _checked(message: Message) -> Message:
    if message["type"] == "http.disconnect":
        raise ConnectionResetError
    return message


class Resumed(Generic[_T]):
    """A coroutine that has been run up to its first wait, to be awaited from there."""

    def __init__(self, coroutine: Coroutine[object, object, _T], waits_for: object) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[object, object, _T]:
        """What awaiting the whole coroutine gives."""
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
        except StopIteration as stop:
            return cast("_T", stop.value)
