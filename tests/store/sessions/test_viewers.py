"""Viewers of sessions: what is connected, and who was removed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from footlights import errors
from footlights.lifecycle import EndReason
from footlights.store import Store, Transaction
from footlights.store.schema import ViewerRow
from footlights.store.sessions import session_rows, viewers
from tests.store.rows import NOW, create, end


def come(tx: Transaction, session_id: str, viewer_id: str, connection: str = "/whep/1", after_s: float = 0) -> bool:
    return told(tx, session_id, viewer_id, connection, after_s) is not None


def told(tx: Transaction, session_id: str, viewer_id: str, connection: str, after_s: float = 0) -> list[str] | None:
    now = NOW + timedelta(seconds=after_s)
    return viewers.connect(tx, session_id, viewer_id, subject="ann", connection=connection, now=now, most=4)


def found(tx: Transaction, session_id: str, viewer_id: str) -> ViewerRow:
    row = viewers.get(tx, session_id, viewer_id)
    assert row is not None
    return row


async def test_a_viewer_has_left_when_its_last_connection_has(store: Store) -> None:
    """It may come again; of another session it is not."""

    def write(tx: Transaction) -> list[ViewerRow]:
        session, other = create(tx), create(tx)
        seen = []
        for connection in ("/whep/1", "/whep/2", "/whep/2"):
            assert come(tx, session.session_id, "v1", connection)
        for gone in ("/whep/1", "/whep/1", "/whep/2"):
            viewers.disconnect(tx, session.session_id, "v1", [gone], now=NOW + timedelta(seconds=5))
            seen.append(found(tx, session.session_id, "v1"))
        come(tx, session.session_id, "v1", "/whep/3", after_s=9)
        assert viewers.get(tx, other.session_id, "v1") is None
        return [*seen, found(tx, session.session_id, "v1")]

    one, same, left, again = await store.write(write)

    assert (one.connections, one.disconnected_time) == (["/whep/2"], None)
    assert same == one
    assert (left.connections, left.disconnected_time) == ([], NOW + timedelta(seconds=5))
    assert (again.connected_time, again.connections, again.disconnected_time) == (NOW, ["/whep/3"], None)


async def test_the_oldest_connections_of_a_viewer_are_named_to_be_ended(store: Store) -> None:
    """They are not known any more, so nobody could end them later."""

    def write(tx: Transaction) -> tuple[list[list[str] | None], ViewerRow]:
        session_id = create(tx).session_id
        seen = [told(tx, session_id, "v1", f"/whep/{number}") for number in (*range(6), 5)]
        seen += [told(tx, session_id, "v1", f"websocket:{number}") for number in range(17)]
        return seen, found(tx, session_id, "v1")

    seen, row = await store.write(write)

    assert seen == [*[[]] * 4, ["/whep/0"], ["/whep/1"], [], *[[]] * 16, ["websocket:0"]]
    assert row.connections[:4] == [f"/whep/{number}" for number in range(2, 6)]
    assert row.connections[4:] == [f"websocket:{number}" for number in range(1, 17)]


async def test_a_removed_viewer_does_not_come_again(store: Store) -> None:
    """The first time of its removal stays; whoever asks for it finds it, however long ago that was."""

    def write(tx: Transaction) -> tuple[bool, ViewerRow, list[frozenset[str]]]:
        session_id = create(tx).session_id
        come(tx, session_id, "v1")
        come(tx, session_id, "v2")
        for seconds in (10, 20):
            viewers.remove(tx, found(tx, session_id, "v1"), now=NOW + timedelta(seconds=seconds))
        those = [viewers.removed(tx, asked) for asked in (["v1", "v2", "v3"], ["v2"], [])]
        return come(tx, session_id, "v1"), found(tx, session_id, "v1"), those

    again, row, those = await store.write(write)

    assert not again
    assert row.removed_time == NOW + timedelta(seconds=10)
    assert those == [{"v1"}, frozenset(), frozenset()]


async def test_a_sessions_viewers_are_bounded_and_go_with_it(store: Store) -> None:
    """Those that left first are forgotten; one that was removed is not, since its grant must be refused."""

    def fill(tx: Transaction) -> str:
        session = create(tx)
        for number in range(7):
            come(tx, session.session_id, f"v{number}", after_s=number)
            if number == 0:
                viewers.remove(tx, found(tx, session.session_id, "v0"), now=NOW)
            if number < 5:
                gone = NOW + timedelta(seconds=number)
                viewers.disconnect(tx, session.session_id, f"v{number}", ["/whep/1"], now=gone)
        end(tx, session, EndReason.USER_TERMINATED, "", now=NOW)
        return session.session_id

    session_id = await store.write(fill)
    names = await store.read(lambda tx: [each.viewer_id for each in viewers.page(tx, session_id, None, 9).rows])
    for name in ("v7", "v8"):
        await store.write(lambda tx, name=name: come(tx, session_id, name))  # type: ignore[misc]
    with pytest.raises(errors.Exhausted) as caught:
        await store.write(lambda tx: come(tx, session_id, "v9"))
    later = NOW + timedelta(days=60)
    await store.write(lambda tx: session_rows.prune(tx, before=later, now=later))

    assert names == ["v6", "v5", "v4", "v3", "v0"]
    assert caught.value.reason == "VIEWER_LIMIT"
    assert await store.read(lambda tx: list(viewers.page(tx, session_id, None, 9).rows)) == []


async def test_viewers_that_never_said_goodbye_shut_nobody_out(store: Store) -> None:
    """After a minute without a change whoever was seen last is forgotten for one that comes; those removed are not."""

    def fill(tx: Transaction) -> list[bool]:
        session_id = create(tx).session_id
        for number in range(5):
            come(tx, session_id, f"v{number}", after_s=number)
            if number == 0:
                viewers.remove(tx, found(tx, session_id, "v0"), now=NOW)
        come(tx, session_id, "v1", "/whep/2", after_s=70)
        for number in range(5, 8):
            come(tx, session_id, f"v{number}", after_s=100 + number)
        return [viewers.get(tx, session_id, f"v{number}") is not None for number in range(8)]

    known = await store.write(fill)

    assert known == [True, True, *[False] * 3, *[True] * 3]


async def test_a_removed_viewer_is_forgotten_when_its_grant_is_no_good(store: Store) -> None:
    """Grants last a day: those that disconnecting has left do not add up."""

    def write(tx: Transaction) -> ViewerRow | None:
        session_id = create(tx).session_id
        come(tx, session_id, "v1")
        viewers.remove(tx, found(tx, session_id, "v1"), now=NOW)
        come(tx, session_id, "v2", after_s=3 * 86400)
        return viewers.get(tx, session_id, "v1")

    assert await store.write(write) is None
