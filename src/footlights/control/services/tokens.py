"""TokenService: the API tokens of callers and agents."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import __version__, errors, ids
from footlights.auth import tokens as secrets
from footlights.auth.roles import Role
from footlights.control.call import bounds
from footlights.control.call.pages import Chunk, ListPage, PagedList, Place
from footlights.protocol import enums
from footlights.protocol.times import timestamp
from footlights.store import Store, Transaction, Unit
from footlights.store import tokens as rows
from footlights.store.schema import TokenRow, microseconds, moment
from footlights.v1 import token_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.control.call.authenticate import TokenAuthenticator
    from footlights.control.call.context import Call
    from footlights.control.call.sealed import Sealer
    from footlights.control.services.writes import Writes

log = structlog.get_logger(__name__)


class TokenService:
    """Serves tokens."""

    def __init__(
        self,
        store: Store,
        writes: Writes,
        authenticator: TokenAuthenticator,
        key: bytes,
        clock: Callable[[], datetime],
        *,
        sealer: Sealer,
    ) -> None:
        self._store, self._writes, self._authenticator = store, writes, authenticator
        self._key, self._clock, self._sealer = key, clock, sealer

    async def create_token(self, request: token_pb2.CreateTokenRequest, call: Call) -> token_pb2.CreateTokenResponse:
        """Create a token; only this answer has its secret."""
        role = Role[enums.name_of(token_pb2.Token.Role, request.role)]
        if role is Role.NODE:
            ids.check_node("subject", request.subject)
        expire = None
        if request.HasField("ttl"):
            fix = "Leave it out for a token without end."
            ttl = bounds.bounded("ttl", request.ttl, most_s=bounds.MAX_TTL_S, fix=fix)
            expire = self._clock() + timedelta(seconds=ttl)
        keyed = partial(secrets.mint_for, self._key, call.caller.subject, request.request_id)
        minted = keyed() if request.request_id else secrets.mint()
        add = storing(
            minted, self._key, role, request.subject, request.description, now=self._clock(), expire_time=expire
        )

        def write(tx: Transaction) -> token_pb2.CreateTokenResponse:
            # Answers are remembered, and no secret may be.
            answer = token_pb2.CreateTokenResponse(token=add(tx))
            if request.validate_only:
                # Nobody shall keep what is no token.
                answer.token.ClearField("token_id")
            return answer

        def done(answer: token_pb2.CreateTokenResponse) -> None:
            log.info("token_created", token_id=answer.token.token_id, role=role.value)

        answer = await self._writes.run(request, call, write, answer=token_pb2.CreateTokenResponse, done=done)
        if not request.validate_only:
            made = answer.token.token_id
            answer.secret = minted.text if made == minted.token_id else keyed(made).text
        return answer

    async def list_tokens(self, request: token_pb2.ListTokensRequest, call: Call) -> token_pb2.ListTokensResponse:
        """Return one page of tokens, newest first."""
        pages = PagedList(self._sealer, "tokens", request)

        def read(tx: Transaction) -> ListPage[token_pb2.Token]:
            def some(after: Place | None, limit: int) -> Chunk[token_pb2.Token]:
                found = rows.page(tx, (moment(after[0]), after[1]) if after else None, limit)
                items = [([microseconds(row.created_time), row.token_id], _message(row)) for row in found.rows]
                return Chunk(items, found.found == limit)

            return pages.page(request, some)

        page = await self._store.read(read)
        return token_pb2.ListTokensResponse(items=page.items, next_page_token=page.next_page_token)

    async def revoke_token(self, request: token_pb2.RevokeTokenRequest, call: Call) -> token_pb2.Token:
        """Revoke a token."""
        now = self._clock()

        def write(tx: Transaction) -> token_pb2.Token:
            row = rows.revoke(tx, request.token_id, now=now)
            if row is None:
                raise errors.NotFound(
                    f"token_id: there is no token {request.token_id!r}. List them with GET /v1/tokens.",
                    reason=errors.Reason.TOKEN_NOT_FOUND,
                    metadata={"field": "token_id", "token_id": request.token_id},
                )
            return _message(row)

        def done(answer: token_pb2.Token) -> None:
            self._authenticator.forget(answer.token_id)
            log.info("token_revoked", token_id=answer.token_id)

        return await self._writes.run(request, call, write, answer=token_pb2.Token, done=done)

    async def get_caller(self, request: token_pb2.GetCallerRequest, call: Call) -> token_pb2.Caller:
        """Return the caller."""
        caller = call.caller
        return token_pb2.Caller(
            subject=caller.subject,
            role=enums.number_of(token_pb2.Token.Role, caller.role),
            permissions=sorted(caller.permissions),
            server_version=__version__,
        )


def new_token(
    key: bytes, role: Role, subject: str, description: str, *, now: datetime, expire_time: datetime | None = None
) -> tuple[str, Unit[token_pb2.Token]]:
    """Make a token. Return its text, which is stored nowhere, and the unit of work that stores its digest."""
    minted = secrets.mint()
    return minted.text, storing(minted, key, role, subject, description, now=now, expire_time=expire_time)


def storing(
    minted: secrets.Minted,
    key: bytes,
    role: Role,
    subject: str,
    description: str,
    *,
    now: datetime,
    expire_time: datetime | None,
) -> Unit[token_pb2.Token]:
    """Return the unit of work that stores the digest of a token that was made."""
    presented = secrets.parse(minted.text)
    assert presented is not None
    digest = secrets.digest(presented, key)
    row = TokenRow(minted.token_id, digest, role.value, subject, description, now, expire_time, revoked_time=None)

    def write(tx: Transaction) -> token_pb2.Token:
        rows.add(tx, row)
        return _message(row)

    return write


def _message(row: TokenRow) -> token_pb2.Token:
    message = token_pb2.Token(
        token_id=row.token_id,
        role=enums.number_of(token_pb2.Token.Role, row.role),
        subject=row.subject,
        description=row.description,
        created_time=timestamp(row.created_time),
    )
    if row.expire_time is not None:
        message.expire_time.CopyFrom(timestamp(row.expire_time))
    if row.revoked_time is not None:
        message.revoked_time.CopyFrom(timestamp(row.revoked_time))
    return message
