"""Tokens: found by id, listed newest first, revoked once."""

from __future__ import annotations

from datetime import timedelta

from footlights.store import Store, Transaction, tokens
from footlights.store.schema import TokenRow
from tests.store.rows import NOW

DAY = timedelta(days=1)


async def test_tokens_are_found_listed_and_revoked(store: Store) -> None:
    """In the order that was asked for, None for one that does not exist; the first time of revoking stays."""

    def write(tx: Transaction) -> None:
        for number, name in enumerate(("old", "new")):
            made, expires = NOW + number * DAY, NOW + 9 * DAY
            tokens.add(tx, TokenRow(name, b"digest", "admin", "ann", "for tests", made, expires, None))

    await store.write(write)
    some = await store.read(lambda tx: tokens.some(tx, ["new", "none", "old"]))
    everything = (await store.read(lambda tx: tokens.page(tx, None, 100))).rows
    first = await store.write(lambda tx: tokens.revoke(tx, "old", now=NOW))
    second = await store.write(lambda tx: tokens.revoke(tx, "old", now=NOW + DAY))

    assert [row and row.token_id for row in some] == ["new", None, "old"]
    assert [row.token_id for row in everything] == ["new", "old"]
    assert everything[0].expire_time == NOW + 9 * DAY
    assert first is not None
    assert first.revoked_time == NOW
    assert second == first
    assert await store.write(lambda tx: tokens.revoke(tx, "none", now=NOW)) is None
