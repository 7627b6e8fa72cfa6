"""Following sessions through lost connections: each stream continues at the cursor of the last frame."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from footlights.client.session_states import has_ended
from footlights.errors import Error, Unavailable
from footlights.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GIVE_UP_S = 0.2, 5.0, 300.0
_GONE: Final = frozenset({"CURSOR_GONE", "INVALID_CURSOR"})
"""Nothing can be sent from the cursor on: what changed is not kept, or another release made the cursor."""


async def resumed(
    begin: Callable[[pb.FollowSessionsRequest], AsyncGenerator[pb.FollowSessionsResponse, None]],
    request: pb.FollowSessionsRequest,
    start_over: Callable[[], None] | None,
) -> AsyncGenerator[pb.FollowSessionsResponse, None]:
    """Yield the frames of consecutive streams.

    The first one must be answered; later ones are retried for ``_GIVE_UP_S`` seconds before ``Unavailable`` is raised.
    A stream of one session that the server itself ends is at its end: the session has ended, or is not there any more.
    """
    wanted = pb.FollowSessionsRequest()
    wanted.CopyFrom(request)
    answered = ended = False
    lost_since: float | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        try:
            async with aclosing(begin(wanted)) as frames:
                async for frame in frames:
                    answered, lost_since = True, None
                    wanted.cursor = frame.cursor
                    if wanted.session_id and frame.HasField("session"):
                        ended = has_ended(frame.session)
                    yield frame
            if wanted.session_id:
                return
        except Unavailable:
            if ended:
                return
            lost_since = time.monotonic() if lost_since is None else lost_since
            if not answered or time.monotonic() - lost_since > _GIVE_UP_S:
                raise
        except Error as problem:
            if problem.reason not in _GONE or start_over is None or not wanted.cursor:
                raise
            start_over()
            wanted.cursor = ""
            continue
        if time.monotonic() - began > _LONGEST_PAUSE_S:
            pause_s = _FIRST_PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
