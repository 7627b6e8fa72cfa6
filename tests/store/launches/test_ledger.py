"""The ledger of slot-seconds balances: what leases say they held is what launches say they spent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from footlights.lifecycle import EndReason, LaunchState, Phases, Stage
from footlights.store import Store, Transaction
from footlights.store.launches import launch_rows
from tests.store.rows import NOW, S, account, begin, create, end, join, observe, read

L = LaunchState


@pytest.fixture
async def session_id(store: Store) -> str:
    """A session that was placed on two slots at NOW."""

    def write(tx: Transaction) -> str:
        join(tx)
        return begin(tx, create(tx), 0, 1).session_id

    return await store.write(write)


def report(tx: Transaction, session_id: str, state: LaunchState, now: datetime, **members: Any) -> None:
    launch = launch_rows.last(tx, session_id)
    assert launch is not None
    observe(tx, launch, state, now=now, **members)


async def test_a_whole_life_is_accounted_for(store: Store, session_id: str) -> None:
    """Two slots: 3 s of start, 10 s of use, 4 s of ending."""

    def live(tx: Transaction) -> None:
        report(tx, session_id, L.READY, NOW + 5 * S, steps={Stage.APPLICATION_READY: NOW + 3 * S})
        end(tx, read(tx, session_id), EndReason.USER_TERMINATED, "", now=NOW + 13 * S)
        report(tx, session_id, L.STOPPING, NOW + 14 * S)
        report(tx, session_id, L.EXITED, NOW + 17 * S)

    await store.write(live)

    entry = await store.read(lambda tx: account(tx, session_id, now=NOW + 99 * S))
    assert (entry.leased, entry.spent) == (34.0, Phases(starting=6.0, used=20.0, ending=8.0))
    assert entry.balanced


async def test_what_is_still_held_counts_until_now(store: Store, session_id: str) -> None:
    """A session that will not die goes on costing, as ending."""

    def live(tx: Transaction) -> None:
        end(tx, read(tx, session_id), EndReason.USER_TERMINATED, "", now=NOW + 2 * S)

    await store.write(live)

    entry = await store.read(lambda tx: account(tx, session_id, now=NOW + 102 * S))
    assert (entry.leased, entry.spent) == (204.0, Phases(starting=4.0, ending=200.0))


async def test_every_launch_of_a_session_counts(store: Store, session_id: str) -> None:
    """One that was refused, then one that ended by itself."""

    def live(tx: Transaction) -> None:
        report(tx, session_id, L.REJECTED, NOW + 1 * S)
        begin(tx, read(tx, session_id), 0, now=NOW + 5 * S)
        report(tx, session_id, L.READY, NOW + 7 * S, steps={Stage.APPLICATION_READY: NOW + 7 * S})
        report(tx, session_id, L.STOPPING, NOW + 9 * S)
        report(tx, session_id, L.EXITED, NOW + 10 * S)

    await store.write(live)

    entry = await store.read(lambda tx: account(tx, session_id, now=NOW))
    assert (entry.leased, entry.spent) == (7.0, Phases(starting=4.0, used=2.0, ending=1.0))


async def test_a_slot_that_is_not_freed_with_its_launch_does_not_balance(store: Store, session_id: str) -> None:
    """The two sides are counted apart, so a leak shows."""

    def leak(tx: Transaction) -> None:
        report(tx, session_id, L.EXITED, NOW + 10 * S)
        tx.connection.exec_driver_sql("UPDATE lease SET released_time = NULL WHERE slot = 1")

    await store.write(leak)

    assert not (await store.read(lambda tx: account(tx, session_id, now=NOW + 60 * S))).balanced
