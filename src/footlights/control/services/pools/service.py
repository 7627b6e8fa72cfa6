"""PoolService: instances that are started before there are sessions for them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from footlights import errors, ids
from footlights.control.call.pages import Chunk, ListPage, PagedList, Place
from footlights.control.services import etags
from footlights.control.services.pools import ahead
from footlights.control.services.sessions.resolve import resolve_pool
from footlights.lifecycle import Intent, LaunchState
from footlights.protocol import times
from footlights.store import Store, Transaction
from footlights.store import pools as rows
from footlights.v1 import pool_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from footlights.auth.secrets import Box
    from footlights.control.call.context import Call
    from footlights.control.call.sealed import Sealer
    from footlights.control.services.writes import Writes
    from footlights.control.settings import ServerSettings
    from footlights.control.signals import Signals
    from footlights.store.pools import WarmInstance
    from footlights.store.schema import PoolRow

_DEFAULT_LIMIT: Final = 100
_LONGEST_GOAL_S: Final = 3600.0
_OUTPUT: Final = (
    "updated_time",
    "etag",
    "resolved_version",
    "wanted_count",
    "ready_count",
    "starting_count",
    "status_message",
    "instances",
)


class PoolService:
    """Serves pools. What it writes is what is wanted: placement starts and ends their instances."""

    def __init__(
        self,
        store: Store,
        writes: Writes,
        bus: Signals,
        clock: Callable[[], datetime],
        *,
        settings: ServerSettings,
        box: Box,
        sealer: Sealer,
    ) -> None:
        self._store, self._writes, self._bus, self._clock = store, writes, bus, clock
        self._settings, self._box, self._sealer = settings, box, sealer

    async def list_pools(self, request: pool_pb2.ListPoolsRequest, call: Call) -> pool_pb2.ListPoolsResponse:
        """Return one page of pools, by name."""
        pages = PagedList(self._sealer, "pools", request)

        def read(tx: Transaction) -> ListPage[pool_pb2.Pool]:
            living = _by_pool(rows.instances(tx))

            def some(after: Place | None, limit: int) -> Chunk[pool_pb2.Pool]:
                found = rows.page(tx, after[0] if after else "", limit)
                items = [([row.pool], _message(row, living[row.pool])) for row in found.rows]
                return Chunk(items, found.found == limit)

            return pages.page(request, some)

        page = await self._store.read(read)
        return pool_pb2.ListPoolsResponse(items=page.items, next_page_token=page.next_page_token)

    async def get_pool(self, request: pool_pb2.GetPoolRequest, call: Call) -> pool_pb2.Pool:
        """Return one pool with its instances."""
        return await self._store.read(lambda tx: _find(tx, request.pool))

    async def set_pool(self, request: pool_pb2.SetPoolRequest, call: Call) -> pool_pb2.Pool:
        """Create or replace a pool."""
        wanted, now = request.pool, self._clock()
        ids.check_slug("pool.pool", wanted.pool)
        _check_size(wanted)

        def write(tx: Transaction) -> pool_pb2.Pool:
            row = rows.get(tx, wanted.pool, lock=True)
            etags.check(request.etag, "" if row is None else _etag(row), f"pool {wanted.pool}")
            if row is None and rows.count(tx) >= rows.MOST_POOLS:
                raise errors.FailedPrecondition(
                    f"pool: there are {rows.MOST_POOLS} pools already, as many as there may be. Delete one.",
                    reason=errors.Reason.TOO_MANY_POOLS,
                    metadata={"field": "pool"},
                )
            bare = _definition(wanted)
            # What it names is there now; what changes later is said in its status.
            ahead.values(resolve_pool(tx, bare, self._settings), bare.pool, self._box)
            rows.put(tx, bare.pool, bare.application, bare.SerializeToString(deterministic=True), now=now)
            return _find(tx, bare.pool)

        return await self._writes.run(request, call, write, answer=pool_pb2.Pool, done=self._changed)

    async def delete_pool(self, request: pool_pb2.DeletePoolRequest, call: Call) -> pool_pb2.DeletePoolResponse:
        """Remove a pool; its instances end."""

        def write(tx: Transaction) -> pool_pb2.DeletePoolResponse:
            etags.check(request.etag, _find(tx, request.pool, lock=True).etag, f"pool {request.pool}")
            rows.remove(tx, request.pool)
            return pool_pb2.DeletePoolResponse()

        return await self._writes.run(request, call, write, answer=pool_pb2.DeletePoolResponse, done=self._changed)

    def _changed(self, _answer: Message) -> None:
        self._bus.catalogue.publish()
        self._bus.placing.publish()


def _check_size(pool: pool_pb2.Pool) -> None:
    """Raise InvalidArgument where a pool has no size, two, or bounds that do not fit."""
    if pool.HasField("size") == pool.HasField("wait_goal"):
        raise errors.InvalidArgument(
            "pool.size",
            "give either size or wait_goal, and not both.",
            reason=errors.Reason.VALUE_CONFLICT,
        )
    for name in ("min_size", "max_size"):
        if pool.HasField("size") and pool.HasField(name):
            raise errors.InvalidArgument(
                f"pool.{name}",
                "bounds a size by wait_goal. Leave it out, or give wait_goal instead of size.",
                reason=errors.Reason.VALUE_CONFLICT,
            )
    if pool.HasField("min_size") and pool.HasField("max_size") and pool.min_size > pool.max_size:
        raise errors.InvalidArgument(
            "pool.min_size",
            f"{pool.min_size} is more than max_size, {pool.max_size}. Lower it, or raise max_size.",
            reason=errors.Reason.VALUE_CONFLICT,
        )
    goal_s = times.seconds(pool.wait_goal)
    if pool.HasField("wait_goal") and not 0 <= goal_s <= _LONGEST_GOAL_S:
        raise errors.InvalidArgument(
            "pool.wait_goal", f"it must be from 0 s to {_LONGEST_GOAL_S:g} s (got {goal_s:g} s)."
        )


def _find(tx: Transaction, name: str, *, lock: bool = False) -> pool_pb2.Pool:
    row = rows.get(tx, name, lock=lock)
    if row is None:
        raise errors.NotFound(
            f"pool: there is no pool {name!r}. List them with GET /v1/pools.",
            reason=errors.Reason.POOL_NOT_FOUND,
            metadata={"field": "pool", "pool": name},
        )
    living = rows.instances(tx, name)
    pool = _message(row, living)
    for each in living:
        pool.instances.add(
            launch_id=each.launch_id,
            state=_state(each),
            application_version=each.application_version,
            node=each.node,
            device=each.device,
            created_time=times.timestamp(each.created_time),
        )
    return pool


def _by_pool(living: Sequence[WarmInstance]) -> defaultdict[str, list[WarmInstance]]:
    found: defaultdict[str, list[WarmInstance]] = defaultdict(list)
    for each in living:
        found[each.pool].append(each)
    return found


def _definition(pool: pool_pb2.Pool) -> pool_pb2.Pool:
    """Return a pool without what the control plane adds."""
    bare = pool_pb2.Pool()
    bare.CopyFrom(pool)
    for name in _OUTPUT:
        bare.ClearField(name)
    return bare


def _etag(row: PoolRow) -> str:
    return etags.of_contents(pool_pb2.Pool.FromString(row.definition))


def _message(row: PoolRow, living: Sequence[WarmInstance]) -> pool_pb2.Pool:
    """Return a pool with the numbers of its instances, without them."""
    pool = pool_pb2.Pool.FromString(row.definition)
    pool.etag = _etag(row)
    pool.updated_time.CopyFrom(times.timestamp(row.updated_time))
    pool.resolved_version = str(row.status.get("version", ""))
    pool.wanted_count = int(row.status.get("wanted", 0))
    pool.status_message = str(row.status.get("message", ""))
    states = Counter(map(_state, living))
    pool.ready_count = states[pool_pb2.Pool.Instance.READY]
    pool.starting_count = states[pool_pb2.Pool.Instance.STARTING]
    return pool


def _state(instance: WarmInstance) -> pool_pb2.Pool.Instance.State.ValueType:
    if instance.intent != Intent.RUN:
        return pool_pb2.Pool.Instance.ENDING
    ready = instance.launch_state == LaunchState.READY and instance.condition == "OK"
    return pool_pb2.Pool.Instance.READY if ready else pool_pb2.Pool.Instance.STARTING
