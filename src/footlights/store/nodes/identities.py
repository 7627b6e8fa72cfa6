"""How nodes prove who they are: their enrollment, whether it was revoked, and their invitation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select, update

from footlights.store.bulk import Inserter
from footlights.store.schema import NODE_IDENTITY, TOKEN, NodeIdentityRow

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from footlights.store.unit import Transaction


def get(tx: Transaction, node: str) -> NodeIdentityRow | None:
    """Return a node's identity; None where it was never invited or revoked."""
    return tx.one(select(NODE_IDENTITY).where(NODE_IDENTITY.c.node == node), NodeIdentityRow)


def locked(tx: Transaction, node: str) -> NodeIdentityRow:
    """Return a node's identity, an empty one where it had none: nobody else changes it until the transaction ends."""
    _insert(tx, [_empty(node)])
    row = tx.one(select(NODE_IDENTITY).where(NODE_IDENTITY.c.node == node).with_for_update(), NodeIdentityRow)
    assert row is not None
    return row


def some(tx: Transaction, nodes: Collection[str]) -> dict[str, NodeIdentityRow]:
    """Return the identities of those of the nodes that have one."""
    if not nodes:
        return {}
    found = tx.all(select(NODE_IDENTITY).where(NODE_IDENTITY.c.node.in_(nodes)), NodeIdentityRow)
    return {row.node: row for row in found}


def invitation(tx: Transaction, invitation_id: str, *, lock: bool = False) -> NodeIdentityRow | None:
    """Return the identity that an invitation is for; ``lock``: nobody else changes it until the transaction ends."""
    found = select(NODE_IDENTITY).where(NODE_IDENTITY.c.invitation_id == invitation_id)
    return tx.one(found.with_for_update() if lock else found, NodeIdentityRow)


def standing(tx: Transaction) -> dict[str, tuple[str | None, bool]]:
    """Return of every node that has one its enrollment, and whether it is revoked."""
    found = select(NODE_IDENTITY.c.node, NODE_IDENTITY.c.enrollment, NODE_IDENTITY.c.revoked_time)
    return {node: (enrollment, revoked is not None) for node, enrollment, revoked in tx.execute(found)}


def invite(tx: Transaction, node: str, invitation_id: str, key: bytes, *, expire_time: datetime) -> NodeIdentityRow:
    """Write an invitation, in place of an earlier one."""
    _set(tx, node, invitation_id=invitation_id, invitation_key=key, invitation_expire_time=expire_time)
    return _found(tx, node)


def certified_by_others(tx: Transaction, authority: str, *, now: datetime) -> list[str]:
    """Return the nodes whose newest certificate is good, and of another authority than this one."""
    mine = NODE_IDENTITY.c
    found = select(mine.node).where(
        mine.revoked_time.is_(None),
        mine.enrollment.is_not(None),
        mine.expire_time > now,
        or_(mine.authority.is_(None), mine.authority != authority),
    )
    return [str(node) for (node,) in tx.execute(found.order_by(mine.node))]


def counts_by_authority(tx: Transaction, *, now: datetime) -> dict[str | None, int]:
    """Return how many nodes have a good certificate of each authority; None: of the first one."""
    mine = NODE_IDENTITY.c
    found = select(mine.authority, func.count()).where(
        mine.revoked_time.is_(None), mine.enrollment.is_not(None), mine.expire_time > now
    )
    return {authority: int(count) for authority, count in tx.execute(found.group_by(mine.authority))}


def enroll(
    tx: Transaction, node: str, enrollment: str, *, now: datetime, expire_time: datetime, authority: str
) -> None:
    """Write that an invitation was used: certificates of before are void, a revocation is over.

    ``authority`` identifies the one that signed the new certificate.
    """
    _set(
        tx,
        node,
        enrollment=enrollment,
        enrolled_time=now,
        expire_time=expire_time,
        authority=authority,
        revoked_time=None,
        invitation_id=None,
        invitation_key=None,
        invitation_expire_time=None,
    )


def renew(tx: Transaction, node: str, enrollment: str, *, expire_time: datetime, authority: str) -> bool:
    """Write when the newest certificate expires, and whose it is; False where the enrollment is void or revoked."""
    same = (NODE_IDENTITY.c.node == node, NODE_IDENTITY.c.enrollment == enrollment)
    statement = update(NODE_IDENTITY).where(*same, NODE_IDENTITY.c.revoked_time.is_(None))
    return bool(tx.changed(statement.values(expire_time=expire_time, authority=authority)))


def revoke(tx: Transaction, node: str, *, now: datetime) -> NodeIdentityRow:
    """Revoke what a node can prove itself with, its tokens too; the first time stays."""
    known = get(tx, node)
    first = known.revoked_time if known is not None else None
    _set(
        tx,
        node,
        revoked_time=first or now,
        invitation_id=None,
        invitation_key=None,
        invitation_expire_time=None,
    )
    mine = (TOKEN.c.subject == node, TOKEN.c.role == "NODE", TOKEN.c.revoked_time.is_(None))
    tx.execute(update(TOKEN).where(*mine).values(revoked_time=now))
    return _found(tx, node)


def has_token(tx: Transaction, node: str) -> bool:
    """Return whether a token for a node's agent exists."""
    found = select(TOKEN.c.token_id).where(TOKEN.c.subject == node, TOKEN.c.role == "NODE").limit(1)
    return tx.execute(found).first() is not None


def _set(tx: Transaction, node: str, **values: Any) -> None:
    _insert(tx, [_empty(node)])
    tx.execute(update(NODE_IDENTITY).where(NODE_IDENTITY.c.node == node).values(**values))


def _empty(node: str) -> NodeIdentityRow:
    return NodeIdentityRow(node, *[None] * (len(NodeIdentityRow._fields) - 1))


def _found(tx: Transaction, node: str) -> NodeIdentityRow:
    row = get(tx, node)
    assert row is not None
    return row


_insert = Inserter(NODE_IDENTITY, skip_conflicts=True)
