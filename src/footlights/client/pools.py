"""Pools, whose instances are started before there are sessions for them: PoolService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.client.pages import Items, items
from footlights.v1 import pool_pb2 as pb
from footlights.v1.pool_pb2_grpc import PoolServiceStub

if TYPE_CHECKING:
    from typing import Unpack

    from footlights.client.connection import CallOptions, ChangeOptions, Connection


class Pools:
    """PoolService. Every method raises ``footlights.errors.Error``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = PoolServiceStub(connection.channel)

    async def list(
        self, request: pb.ListPoolsRequest | None = None, **options: Unpack[CallOptions]
    ) -> pb.ListPoolsResponse:
        """Return one page of pools, by name."""
        wanted = request or pb.ListPoolsRequest()
        return await self._connection.call(self._stub.ListPools, wanted, pb.ListPoolsResponse, options)

    def iterate(self, **options: Unpack[CallOptions]) -> Items[pb.ListPoolsResponse, pb.Pool]:
        """Return all pools, by name."""
        return items(lambda wanted: self.list(wanted, **options), pb.ListPoolsRequest())

    async def get(self, pool: str, **options: Unpack[CallOptions]) -> pb.Pool:
        """Return one pool, with its instances."""
        return await self._connection.call(self._stub.GetPool, pb.GetPoolRequest(pool=pool), pb.Pool, options)

    async def set(self, pool: pb.Pool, **options: Unpack[ChangeOptions]) -> pb.Pool:
        """Create or replace a pool."""
        return await self._connection.call(self._stub.SetPool, pb.SetPoolRequest(pool=pool), pb.Pool, options)

    async def delete(self, pool: str, **options: Unpack[ChangeOptions]) -> pb.DeletePoolResponse:
        """Delete a pool; its instances end."""
        request = pb.DeletePoolRequest(pool=pool)
        return await self._connection.call(self._stub.DeletePool, request, pb.DeletePoolResponse, options)
