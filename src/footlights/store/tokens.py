"""Tokens, as keyed hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, tuple_, update

from footlights.store.bulk import Inserter
from footlights.store.schema import TOKEN, TokenRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.unit import Readable, Transaction


def get(tx: Transaction, token_id: str) -> TokenRow | None:
    """Return one token."""
    return tx.one(select(TOKEN).where(TOKEN.c.token_id == token_id), TokenRow)


def some(tx: Transaction, token_ids: Sequence[str]) -> list[TokenRow | None]:
    """Return tokens in the order of their ids; None for one that is not there."""
    known = {row.token_id: row for row in tx.all(select(TOKEN).where(TOKEN.c.token_id.in_(token_ids)), TokenRow)}
    return [known.get(token_id) for token_id in token_ids]


def page(tx: Transaction, after: tuple[datetime, str] | None, limit: int) -> Readable[TokenRow]:
    """Return up to ``limit`` tokens that come after one, given by its time and its id: newest first."""
    key = TOKEN.c.created_time, TOKEN.c.token_id
    statement = select(TOKEN).order_by(*(column.desc() for column in key)).limit(limit)
    if after is not None:
        statement = statement.where(tuple_(*key) < tuple_(*after, types=[column.type for column in key]))
    return tx.readable(statement, TokenRow)


def add(tx: Transaction, row: TokenRow) -> None:
    """Add a token."""
    _insert(tx, [row])


def revoke(tx: Transaction, token_id: str, *, now: datetime) -> TokenRow | None:
    """Revoke a token; the first time stays. None where there is no such token."""
    tx.execute(
        update(TOKEN).where(TOKEN.c.token_id == token_id, TOKEN.c.revoked_time.is_(None)).values(revoked_time=now)
    )
    return get(tx, token_id)


_insert = Inserter(TOKEN)
