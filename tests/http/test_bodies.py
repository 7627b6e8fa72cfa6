"""Bounded request bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from footlights.http.bodies import BodyTooLarge, BodyTooSlow, body_pieces, read_body

Receive = Callable[[], Awaitable[Any]]


def receiving(*pieces: bytes, ends: bool = True, yields: bool = False) -> Receive:
    """A client that sends pieces, and then pauses unless it ``ends``."""
    coming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends and coming:
        coming[-1]["more_body"] = False

    async def receive() -> Any:
        if yields:
            await asyncio.sleep(0)
        if coming:
            return coming.pop(0)
        return await asyncio.get_running_loop().create_future()

    return receive


@pytest.mark.parametrize("yields", [False, True])
@pytest.mark.parametrize("pieces", [(b"",), (b"abc",), (b"a", b"", b"bc")])
async def test_whole(pieces: tuple[bytes, ...], yields: bool) -> None:
    """
    A body is read whole, whether it is there already or comes in pieces.
    """
    body = await read_body(receiving(*pieces, yields=yields), max_bytes=3, pause_s=5)

    assert body == b"".join(pieces)


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd"), (b"abcd", b"never read")])
async def test_too_large(pieces: tuple[bytes, ...]) -> None:
    """
    A body is refused as soon as it is larger than the bound.
    """
    with pytest.raises(BodyTooLarge):
        await read_body(receiving(*pieces, ends=False), max_bytes=3, pause_s=5)


@pytest.mark.parametrize("pieces", [(), (b"a",)])
async def test_too_slow(pieces: tuple[bytes, ...]) -> None:
    """
    A pause that is too long ends the wait, before the first piece and after it.
    """
    with pytest.raises(BodyTooSlow):
        await read_body(receiving(*pieces, ends=False), max_bytes=3, pause_s=0.01)


@pytest.mark.parametrize("yields", [False, True])
async def test_disconnect(yields: bool) -> None:
    """
    A client that disconnects is a reset connection.
    """

    async def receive() -> Any:
        if yields:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    with pytest.raises(ConnectionResetError):
        await read_body(receive, max_bytes=3, pause_s=5)


async def test_cancelled_while_waiting() -> None:
    """
    Cancelling the reader cancels what it waits for.
    """
    pending: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    waits = asyncio.Event()

    async def receive() -> Any:
        waits.set()
        return await pending

    task = asyncio.create_task(read_body(receive, max_bytes=3, pause_s=5))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert pending.cancelled()


async def test_pieces() -> None:
    """
    Pieces come one by one, empty ones left out, and a pause ends them.
    """
    assert [piece async for piece in body_pieces(receiving(b"a", b"", b"b"), pause_s=5)] == [b"a", b"b"]
    with pytest.raises(BodyTooSlow):
        assert [piece async for piece in body_pieces(receiving(b"a", ends=False), pause_s=0.01)]


async def test_a_body_that_trickles_is_too_slow() -> None:
    """Each piece in time, and yet no end: the whole is bounded too."""

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async with asyncio.timeout(5):
        with pytest.raises(BodyTooSlow):
            await read_body(receive, max_bytes=1 << 20, pause_s=0.3)
