"""A portal's WebSocket while its application starts, and on its way to the front door after that."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Scope, Send

    from footlights.control.services.nvcf.asked import Asked

_MOST_EARLY: Final = 8
"""So many messages are kept for an application that is not there yet; the others stay in the connection."""
_LONGEST_EARLY: Final = 64 << 10
_BEAT: Final = '{"hb":1}'
"""What both sides of a signalling connection say every few seconds, so that the other one sees that they are there."""
_REFUSED, _NOT_FOUND, _TOO_BIG = 3001, 3004, 1009
"""Codes of the portal's own, and one of WebSockets."""
_MOST_REASON_BYTES: Final = 123
_DENIAL: Final = "websocket.http.response"


class Inbox:
    """What a client sends: it is read all the time, so that it is known when the client has left."""

    def __init__(self, receive: Receive) -> None:
        self.left = asyncio.Event()
        """Set once the client has left, or is not to be listened to any longer."""
        self.is_flooded = False
        """Whether the client says more than is kept of it."""
        self._receive = receive
        self._messages: asyncio.Queue[Message] = asyncio.Queue(_MOST_EARLY)
        self._is_handed_over = False

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, receive: Receive) -> AsyncIterator[Inbox]:
        """Read a client while the body runs."""
        inbox = cls(receive)
        reading = asyncio.create_task(inbox._read())
        try:
            yield inbox
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def hand_over(self) -> Receive:
        """Return what gives all messages as an ASGI server does; from now on somebody reads them."""
        self._is_handed_over = True
        connect: list[Message] = [{"type": "websocket.connect"}]

        async def receive() -> Message:
            return connect.pop() if connect else await self._messages.get()

        return receive

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self.left.set()
                await self._messages.put(message)
                return
            text = message.get("text") or message.get("bytes") or ""
            if not self._is_handed_over and len(text) > _LONGEST_EARLY:
                self.is_flooded = True
                self.left.set()
                return
            if self._is_handed_over or not _is_beat(text):
                await self._messages.put(message)


class Reply:
    """What a client is sent."""

    def __init__(self, scope: Scope, send: Send, asked: Asked, *, beat_s: float) -> None:
        """Create it; ``beat_s`` is how often it says that somebody is there, in seconds."""
        self.session_id = ""
        self.is_open = False
        self._can_deny = _DENIAL in (scope.get("extensions") or {})
        self._send, self._asked = send, asked
        self._headers: list[tuple[bytes, bytes]] = []
        self._beat_s, self._next_beat = beat_s, 0.0
        self._denied_with = 0

    def know(self, session_id: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Note the session, and the headers with which a client is told of it."""
        self.session_id, self._headers = session_id, headers

    async def open(self) -> None:
        """Open the WebSocket for an application that is not there yet."""
        if not self.is_open:
            self._next_beat = asyncio.get_running_loop().time() + self._beat_s
            await self.pass_on({"type": "websocket.accept", "subprotocol": None})

    async def beat(self) -> None:
        """Say that somebody is there, as the application would, if it is time for it."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_beat:
            self._next_beat = now + self._beat_s
            await self._send({"type": "websocket.send", "text": _BEAT})

    async def end_flood(self) -> None:
        """Close the open WebSocket of a client that says more than is kept of it."""
        reason = f"more than {_LONGEST_EARLY} bytes before the application is ready"
        await self._send({"type": "websocket.close", "code": _TOO_BIG, "reason": reason})

    async def refuse(self, status: int, why: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Deny the WebSocket, or close it if it is open; portals pass on why as the reason of a close."""
        reason = why.encode()[:_MOST_REASON_BYTES].decode("utf-8", "ignore")
        if self._can_deny and not self.is_open:
            body = reason.encode()
            length = (b"content-length", str(len(body)).encode())
            await self._send({"type": f"{_DENIAL}.start", "status": status, "headers": [*headers, length]})
            await self._send({"type": f"{_DENIAL}.body", "body": body})
            return
        code = _NOT_FOUND if status == 404 else _REFUSED
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def pass_on(self, message: Message) -> None:
        """Send what the front door sends (ASGI)."""
        match message["type"]:
            case "websocket.accept":
                if self.is_open:
                    return
                self.is_open = True
                chosen = message.get("subprotocol") or self._asked.answered_with
                headers = [*message.get("headers", ()), *self._headers]
                await self._send({**message, "subprotocol": chosen, "headers": headers})
            case "websocket.http.response.start":
                self._denied_with = message["status"]
            case "websocket.http.response.body":
                text = (b"content-type", b"text/plain; charset=utf-8")
                await self.refuse(self._denied_with, _message_of(message["body"]), [text])
            case _:
                await self._send(message)


def _is_beat(text: Any) -> bool:
    if len(text) > len(_BEAT) + 8:
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == {"hb"}


def _message_of(body: bytes) -> str:
    """Return what an error of ours says."""
    return str(json.loads(body)["message"])
