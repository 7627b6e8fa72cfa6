"""TokenService: what callers and agents prove themselves with."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from footlights import __version__, errors, ids
from footlights.auth import tokens as secrets
from footlights.auth.roles import Role
from footlights.control import present
from footlights.control.call import bounds
from footlights.control.call import context as calls
from footlights.store import Store, Transaction
from footlights.store import tokens as rows
from footlights.v1 import token_pb2, token_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from footlights.control.call.authenticate import Authentication

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class Tokens(token_pb2_grpc.TokenServiceServicer):
    """Serves tokens."""

    def __init__(self, store: Store, authentication: Authentication, key: bytes, clock: Callable[[], datetime]) -> None:
        """Take what it reads and writes, who remembers tokens, and what digests are made with."""
        self._store, self._authentication, self._key, self._clock = store, authentication, key, clock

    async def CreateToken(
        self, request: token_pb2.CreateTokenRequest, context: Context
    ) -> token_pb2.CreateTokenResponse:
        """Create a token; its secret is in this answer only."""
        role = Role(token_pb2.Token.Role.Name(request.role))
        if role is Role.NODE:
            ids.check_node("subject", request.subject)
        expire = None
        if request.HasField("ttl"):
            fix = "Leave it out for a token without end."
            ttl = bounds.positive("ttl", request.ttl, most_s=bounds.MAX_TTL_S, fix=fix)
            expire = self._clock() + timedelta(seconds=ttl)
        text, row = await create(
            self._store,
            self._key,
            role,
            request.subject,
            request.description,
            now=self._clock(),
            expire_time=expire,
        )
        log.info("token_created", token_id=row.token_id, role=role.value)
        return token_pb2.CreateTokenResponse(secret=text, token=row)

    async def ListTokens(self, request: token_pb2.ListTokensRequest, context: Context) -> token_pb2.ListTokensResponse:
        """Return all tokens, newest first."""
        found = await self._store.read(rows.everything)
        return token_pb2.ListTokensResponse(items=[present.token(row) for row in found])

    async def RevokeToken(self, request: token_pb2.RevokeTokenRequest, context: Context) -> token_pb2.Token:
        """Refuse a token from now on."""
        now = self._clock()
        row = await self._store.write(lambda tx: rows.revoke(tx, request.token_id, now=now))
        if row is None:
            raise errors.NotFound(
                f"token_id: there is no token {request.token_id!r}. List them with GET /tokens.",
                reason="TOKEN_NOT_FOUND",
                metadata={"field": "token_id", "token_id": request.token_id},
            )
        self._authentication.forget(row.token_id)
        log.info("token_revoked", token_id=row.token_id)
        return present.token(row)

    async def GetCaller(self, request: token_pb2.GetCallerRequest, context: Context) -> token_pb2.Caller:
        """Say who calls."""
        caller = calls.current().caller
        return token_pb2.Caller(
            subject=caller.subject,
            role=token_pb2.Token.Role.Value(caller.role.value),
            permissions=sorted(caller.permissions),
            server_version=__version__,
        )


async def create(
    store: Store,
    key: bytes,
    role: Role,
    subject: str,
    description: str,
    *,
    now: datetime,
    expire_time: datetime | None = None,
) -> tuple[str, token_pb2.Token]:
    """Mint a token and store its digest; return its text, which exists nowhere else, and the token."""
    minted = secrets.mint()
    presented = secrets.parse(minted.text)
    assert presented is not None
    digest = secrets.digest(presented, key)

    def write(tx: Transaction) -> token_pb2.Token:
        rows.add(
            tx,
            minted.token_id,
            digest,
            role.value,
            subject,
            description,
            now=now,
            expire_time=expire_time,
        )
        row = rows.get(tx, minted.token_id)
        assert row is not None
        return present.token(row)

    return minted.text, await store.write(write)


async def ensure_first(store: Store, key: bytes, path: Path, *, now: datetime) -> None:
    """Write the first operator's token to ``path``, mode 0600, where the store has no token yet."""
    if await store.read(rows.everything):
        return
    text, _ = await create(store, key, Role.OPERATOR, "admin", "The first token", now=now)
    _write_private(path, text + "\n")
    log.info("first_token", path=str(path))


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
