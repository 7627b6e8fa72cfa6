"""What is sealed in the database, and how it is sealed again."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from footlights.store.cluster import sealed_values

if TYPE_CHECKING:
    from footlights.store import Store

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SECRETS = sealed_values.COLUMNS[2]


async def test_the_first_of_two_that_keep_a_secret_wins(store: Store) -> None:
    """Replicas that start at once all use what the first one has written."""
    first = await store.write(lambda tx: sealed_values.keep_secret(tx, "a", b"1", now=NOW))
    second = await store.write(lambda tx: sealed_values.keep_secret(tx, "a", b"2", now=NOW))

    assert (first, second) == (b"1", b"1")
    assert await store.read(lambda tx: sealed_values.secret(tx, "b")) is None


async def test_what_has_changed_meanwhile_is_left_alone(store: Store) -> None:
    """A value is sealed again only if it is still the one that was read; pages are in the order of keys."""
    for name in "bac":
        await store.write(partial(sealed_values.keep_secret, name=name, sealed=name.encode(), now=NOW))
    page = await store.read(lambda tx: sealed_values.page(tx, SECRETS, "", 2))
    assert page == [("a", b"a"), ("b", b"b")]
    assert await store.read(lambda tx: sealed_values.page(tx, SECRETS, "b", 2)) == [("c", b"c")]

    stale = [("a", b"a"), ("b", b"old")]
    await store.write(lambda tx: sealed_values.replace(tx, SECRETS, stale, lambda key, value: value + key))

    found = await store.read(lambda tx: sealed_values.page(tx, SECRETS, "", 9))
    assert found == [("a", b"aa"), ("b", b"b"), ("c", b"c")]
