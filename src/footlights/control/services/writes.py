"""Writes of callers: once for each request id, or not at all where a call only asks whether it would be allowed.

A handler gives what it does as a unit of work, and what is to be said once it is done: a signal, a line in the log.

* With ``request_id`` the answer is remembered in the transaction of the write itself (``store.remembered_calls``),
  sealed, because some answers are private. A repetition gets it, with the metadata ``idempotency-replayed: true``, and
  nothing is done. A call that failed may be tried again under its id: it changed nothing. No answer may have a secret
  of ours: a handler adds it afterwards.
* With ``validate_only`` the unit runs and is rolled back: the answer is what the call would have answered, and every
  refusal is the real one, also that of a ``request_id`` that was used before. Nothing is remembered. Its answer has
  neither etag nor revision: another call's change will get them.
* What a request is bound to is its ``etag``, or that of the resource in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from footlights import errors
from footlights.control.services import etags
from footlights.store import BatchWrite, remembered_calls
from footlights.store.remembered_calls import CallKey, Written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.auth.secrets import Box
    from footlights.control.call.context import Call
    from footlights.store import Store, Transaction, Unit

REPLAYED = ("idempotency-replayed", "true")
"""The metadata of an answer that was given before."""


class WriteRequest(Protocol):
    """The members that the request of every write has."""

    request_id: str
    validate_only: bool


RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class KeyedItem(Generic[Item]):
    """An item of a batch write, with the request id under which its answer is remembered; None: without one."""

    item: Item
    key: CallKey | None


class Writes:
    """Runs the writes of callers."""

    def __init__(self, store: Store, box: Box, clock: Callable[[], datetime]) -> None:
        self._store, self._box, self._clock = store, box, clock

    async def run(
        self,
        request: WriteRequest,
        call: Call,
        unit: Unit[ResponseT],
        *,
        answer: type[ResponseT],
        done: Callable[[ResponseT], None] = lambda _: None,
    ) -> ResponseT:
        """Run a unit of work that returns the answer of a call.

        Args:
            request: The request, as it was sent.
            call: The call.
            unit: Does everything that the call does; it may run several times, of which one is committed.
            answer: The class of the answer.
            done: Is given the answer once it was written, and never that of a call that changed nothing.
        """
        assert isinstance(request, Message)
        etags.take(request)
        key = key_of(request, call)

        def once(tx: Transaction) -> Written[ResponseT]:
            [found] = self._once(tx, [key], lambda _: [unit(tx)], answer)
            if isinstance(found, errors.Error):
                raise found
            return found

        if request.validate_only:
            return await self.validate(once, call)
        return self._told(await self._store.write(once), call, done)

    def batch(
        self,
        name: str,
        write_all: Callable[[Transaction, Sequence[Item]], Sequence[ResponseT | errors.Error]],
        answer: type[ResponseT],
    ) -> BatchWrite[KeyedItem[Item], Written[ResponseT]]:
        """Return a batch write whose items may have request ids, for ``run_batched``."""

        def write(tx: Transaction, items: Sequence[KeyedItem[Item]]) -> Sequence[Written[ResponseT] | errors.Error]:
            keys = [each.key for each in items]
            return self._once(tx, keys, lambda numbers: write_all(tx, [items[n].item for n in numbers]), answer)

        return BatchWrite(name, write)

    async def run_batched(
        self,
        request: WriteRequest,
        call: Call,
        batch: BatchWrite[KeyedItem[Item], Written[ResponseT]],
        item: Item,
        *,
        done: Callable[[ResponseT], None],
    ) -> ResponseT:
        """Do as ``run`` by an item of a batch write, which shares its statements with others."""
        keyed = KeyedItem(item, key_of(request, call))
        if request.validate_only:

            def alone(tx: Transaction) -> Written[ResponseT]:
                [found] = batch.write_all(tx, [keyed])
                if isinstance(found, errors.Error):
                    raise found
                return found

            return await self.validate(alone, call)
        return self._told(await self._store.write_batched(batch, keyed), call, done)

    async def validate(self, unit: Unit[Written[ResponseT]], call: Call) -> ResponseT:
        """Run a unit, undo it, and return its answer, without the versions that are not written."""

        def write(tx: Transaction) -> None:
            raise _RolledBack(unit(tx))

        try:
            await self._store.write(write)
        except _RolledBack as undone:
            written: Written[ResponseT] = undone.args[0]
        else:
            raise AssertionError("the unit of work was committed")
        if not written.replayed:
            _clear_versions(written.answer)
        return self._told(written, call)

    def _told(
        self, written: Written[ResponseT], call: Call, done: Callable[[ResponseT], None] = lambda _: None
    ) -> ResponseT:
        if written.replayed:
            call.initial_metadata.append(REPLAYED)
        else:
            done(written.answer)
        return written.answer

    def _once(
        self,
        tx: Transaction,
        keys: Sequence[CallKey | None],
        write_all: Callable[[Sequence[int]], Sequence[ResponseT | errors.Error]],
        answer: type[ResponseT],
    ) -> list[Written[ResponseT] | errors.Error]:
        return remembered_calls.once(
            tx,
            keys,
            write_all,
            encode=lambda key, message: self._box.seal(message.SerializeToString(), _bound_to(key)),
            decode=lambda key, sealed: answer.FromString(self._box.open(sealed, _bound_to(key))),
            now=self._clock(),
        )


class _RolledBack(Exception):
    """Undoes a unit and carries its answer out: its only argument."""


def _clear_versions(message: Message) -> None:
    """Take out what names a version of a resource that was never there."""
    for field, value in message.ListFields():
        if field.name in ("etag", "revision"):
            message.ClearField(field.name)
        elif field.message_type is not None and not field.is_repeated:
            _clear_versions(value)


def key_of(request: WriteRequest, call: Call) -> CallKey | None:
    """Return under what a call is remembered; None where it has no request id."""
    if not request.request_id:
        return None
    return CallKey(call.caller.subject, call.method, request.request_id, digest_of(request))


def digest_of(request: WriteRequest) -> bytes:
    """Return a digest of what a request asks for: a repeated request has the same one."""
    assert isinstance(request, Message)
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    bare.ClearField("validate_only")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()


def _bound_to(key: CallKey) -> bytes:
    return "\0".join(("call", *key.key)).encode()
