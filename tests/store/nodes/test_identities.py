"""Identities of nodes: invited, enrolled, renewed, revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from footlights.store.nodes import identities

if TYPE_CHECKING:
    from footlights.store import Store

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


async def test_an_enrollment_voids_the_one_before(store: Store) -> None:
    """The invitation is used up, a revocation is over, and what had the earlier enrollment can renew nothing."""
    await store.write(lambda tx: identities.enroll(tx, "a", "first", now=NOW, expire_time=LATER, authority="one"))
    await store.write(lambda tx: identities.revoke(tx, "a", now=NOW))
    assert not await store.write(lambda tx: identities.renew(tx, "a", "first", expire_time=LATER, authority="one"))
    await store.write(lambda tx: identities.invite(tx, "a", "i1", b"key", expire_time=LATER))
    found = await store.read(lambda tx: identities.invitation(tx, "i1"))
    assert found is not None
    assert (found.node, found.invitation_key) == ("a", b"key")

    await store.write(lambda tx: identities.enroll(tx, "a", "second", now=NOW, expire_time=LATER, authority="one"))

    assert await store.read(lambda tx: identities.invitation(tx, "i1")) is None
    assert await store.read(identities.standing) == {"a": ("second", False)}
    assert not await store.write(lambda tx: identities.renew(tx, "a", "first", expire_time=LATER, authority="one"))
    assert await store.write(lambda tx: identities.renew(tx, "a", "second", expire_time=LATER, authority="one"))


async def test_a_revocation_needs_no_invitation_before(store: Store) -> None:
    """It holds for a name that nothing is known of; the first time stays, and it takes an invitation with it."""
    await store.write(lambda tx: identities.revoke(tx, "a", now=NOW))
    await store.write(lambda tx: identities.invite(tx, "a", "i1", b"key", expire_time=LATER))

    row = await store.write(lambda tx: identities.revoke(tx, "a", now=LATER))

    assert (row.revoked_time, row.invitation_id) == (NOW, None)
    assert await store.read(lambda tx: identities.some(tx, ["a", "b"])) == {"a": row}


async def test_a_node_is_counted_for_the_authority_of_its_newest_certificate(store: Store) -> None:
    """While that is good: neither a revoked node nor one whose certificate has expired needs any."""
    for node, authority in (("a", "old"), ("b", "new"), ("c", "old"), ("d", "old")):
        end = NOW if node == "d" else LATER
        await store.write(
            lambda tx: identities.enroll(tx, node, node, now=NOW, expire_time=end, authority=authority)  # noqa: B023
        )
    await store.write(lambda tx: identities.revoke(tx, "c", now=NOW))

    assert await store.read(lambda tx: identities.certified_by_others(tx, "new", now=NOW)) == ["a"]
    assert await store.read(lambda tx: identities.counts_by_authority(tx, now=NOW)) == {"old": 1, "new": 1}
    await store.write(lambda tx: identities.renew(tx, "a", "a", expire_time=LATER, authority="new"))
    assert await store.read(lambda tx: identities.certified_by_others(tx, "new", now=NOW)) == []
