"""What the two ends of a call share: metadata, messages on their way, and how it ended."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import grpc.aio

from footlights.gateway.inprocess.pipe import Pipe
from footlights.gateway.sweep import PERIOD_S, Sweep
from footlights.gateway.upstream.metadata import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_KEY: Final = re.compile(r"[0-9a-z_.\-]+")
LOCALLY_CANCELLED: Final = "Locally cancelled by application!"


Entries = tuple[Entry, ...]


class End(NamedTuple):
    """How a call ended. ``local`` says that its client cancelled it."""

    code: grpc.StatusCode
    details: str
    trailing: Entries = ()
    local: bool = False


class CallState:
    """A call in flight.

    Args:
        method: ``/package.Service/Method``.
        metadata: what the client sent.
        timeout: seconds until the deadline, or None.
        streams: whether its client takes many responses.
        sweep: the channel's, for deadlines that are not near.
    """

    # Most of these keep their first value in most calls, and a class says that once.
    task: asyncio.Task[None] | None = None
    responses: Pipe | None = None
    answer: Any = None
    initial: Entries | None = None
    end: End | None = None
    deadline: float | None = None
    _on_end: list[Callable[[], object]] | None = None
    _requests: Pipe | None = None
    _waiters: list[asyncio.Future[None]] | None = None
    _timer: asyncio.TimerHandle | None = None
    _sweep: Sweep | None = None

    def __init__(
        self, method: str, metadata: Entries, timeout: float | None, *, streams: bool, sweep: Sweep
    ) -> None:  # fmt: skip
        self.method, self.metadata = method, metadata
        self.loop = asyncio.get_running_loop()
        if streams:
            self.responses = Pipe()
        if timeout is not None:
            self.deadline = self.loop.time() + timeout
            if timeout > 4 * PERIOD_S:
                self._sweep = sweep
                sweep.add(self)
            else:
                self.linger()

    @property
    def requests(self) -> Pipe:
        """Where a client streams its requests into."""
        if self._requests is None:
            self._requests = Pipe()
            if self.end is not None:
                self._requests.drop()
        return self._requests

    def linger(self) -> None:
        """It takes a while, so the deadline gets a timer."""
        assert self.deadline is not None
        self._sweep, self._timer = None, self.loop.call_at(self.deadline, self.expire)

    @property
    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline is None else max(self.deadline - self.loop.time(), 0.0)

    def open(self, initial: Entries) -> None:
        """The server's initial metadata are out."""
        if self.initial is None:
            self.initial = initial
            self._wake()

    def finish(self, end: End) -> bool:
        """Set the end, unless the call has one; wakes everybody."""
        if self.end is not None:
            return False
        self.end = end
        if self.initial is None:
            self.initial = ()
        if self._sweep is not None:
            self._sweep.discard(self)
        elif self._timer is not None:
            self._timer.cancel()
        if self._requests is not None:
            self._requests.drop()
        if self.responses is not None:
            self.responses.close()
        if self._on_end is not None:
            for callback in self._on_end:
                self.loop.call_soon(callback)
            self._on_end = None
        self._wake()
        return True

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call back soon after the end."""
        if self.end is not None:
            self.loop.call_soon(callback)
        elif self._on_end is None:
            self._on_end = [callback]
        else:
            self._on_end.append(callback)

    def stop(self, end: End) -> bool:
        """End the call from outside the handler: what is on its way is dropped, the handler is cancelled."""
        if not self.finish(end):
            return False
        if self.responses is not None:
            self.responses.drop()
        if self.task is not None:
            self.task.cancel()
        return True

    def expire(self) -> None:
        """The deadline has passed."""
        self.stop(End(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def cancel(self, details: str = LOCALLY_CANCELLED) -> bool:
        """The client has cancelled."""
        return self.stop(End(grpc.StatusCode.CANCELLED, details, local=True))

    async def opened(self) -> Entries:
        """Wait for the initial metadata, or the end."""
        while self.initial is None:
            await self.changed()
        return self.initial

    async def ended(self) -> End:
        """Wait for the end."""
        while self.end is None:
            await self.changed()
        return self.end

    def changed(self) -> asyncio.Future[None]:
        """Something to wait for until initial metadata or the end are there."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        return waiter

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


def entries(metadata: Iterable[tuple[str, str | bytes]] | None) -> Entries:
    """Checked metadata.

    Raises:
        grpc.aio.UsageError: a key or a value that gRPC cannot carry.
    """
    if not metadata:
        return ()
    checked = []
    for pair in metadata:
        if type(pair) is Entry:
            checked.append(pair)
            continue
        key, value = pair
        kind = _kind(key)
        if kind is None:
            raise grpc.aio.UsageError(f"metadata key {key!r} is not lower case letters, digits, '-', '_' and '.'")
        if not isinstance(value, kind):
            raise grpc.aio.UsageError(f"metadata {key!r} wants {kind.__name__}, not {value!r}")
        if kind is str and not (value.isascii() and value.isprintable()):  # type: ignore[union-attr]  # it is a str
            raise grpc.aio.UsageError(f"metadata {key!r} wants printable ASCII, not {value!r}")
        checked.append(Entry(key, value))
    return tuple(checked)


@lru_cache(maxsize=4096)
def _kind(key: str) -> type[str | bytes] | None:
    """The type of a key's values; None for what is no key."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        return None
    # The prefix is gRPC's own; rich status is the one key that applications set.
    if key.startswith("grpc-") and key != "grpc-status-details-bin":
        return None
    return bytes if key.endswith("-bin") else str
