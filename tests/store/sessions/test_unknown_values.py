"""Rows with a value of a later release (`unknown_values`); what follows from them is in `tests/skew`."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from footlights import errors
from footlights.store import Store
from footlights.store.sessions import session_rows, unknown_values
from footlights.store.sessions.derivation import SessionStates
from tests.store.rows import NOW, create


async def test_only_what_this_release_lacks_is_unknown(store: Store) -> None:
    """A row as this release writes it has nothing of the kind; an end reason that is not given yet is none."""
    row = await store.write(create)

    assert unknown_values.of_session(row) == {}
    assert unknown_values.of_session(row._replace(state="PAUSED", wish="BUDGET")) == {
        "state": "PAUSED",
        "wish": "BUDGET",
    }


async def test_a_session_of_a_later_release_is_in_nobodys_hands_and_logged_once(store: Store) -> None:
    """It is not among the sessions to be changed, and a direct change is refused with the value."""
    made = await store.write(create)
    await store.write(lambda tx: session_rows.update_session(tx, made, now=NOW, state="PAUSED"))

    with capture_logs() as logs:
        for _ in range(3):
            states = await store.write(lambda tx: SessionStates.of_sessions(tx, [made.session_id]))
    row = states.as_read(made.session_id)

    assert row is not None
    assert row.state == "PAUSED"
    assert states.session(made.session_id) is None
    assert states.left_alone(made.session_id)
    assert [entry["values"] for entry in logs if entry["event"] == "session_of_later_release"] == [
        '{"state": "PAUSED"}'
    ]
    with pytest.raises(errors.FailedPrecondition, match="state PAUSED") as refused:
        await store.write(lambda tx: session_rows.update_session(tx, row, now=NOW, priority=1))
    assert refused.value.reason == "SESSION_OF_LATER_RELEASE"
    await store.write(lambda tx: session_rows.derive(tx, [made.session_id], now=NOW))
    assert await store.read(lambda tx: session_rows.get(tx, made.session_id)) == row
