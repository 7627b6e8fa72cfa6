"""The first token, and getting in again when all tokens are lost."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from footlights import errors
from footlights.auth.roles import Role
from footlights.auth.secrets import ClusterKey
from footlights.control.call.authenticate import TokenAuthenticator
from footlights.control.services.bootstrap import recover
from footlights.store import open_store
from tests.store.databases import postgres

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def test_a_recovered_token_is_an_operators(tmp_path: Path) -> None:
    """Made with the server's directory alone, it opens everything at that server; its digest is what is stored."""
    key = ClusterKey.load_or_create(tmp_path / "cluster.key", {})

    text = await recover(tmp_path, "", "ann", {}, now=NOW)

    store = open_store(tmp_path)
    try:
        caller = await TokenAuthenticator(store, key.derive("tokens"), lambda: NOW).caller(f"Bearer {text}")
    finally:
        await store.close()
    assert (caller.subject, caller.role) == ("ann", Role.OPERATOR)


async def test_the_right_key_is_needed(tmp_path: Path) -> None:
    """No key is made up: a token under a new one would be good for nothing."""
    with pytest.raises(errors.FailedPrecondition) as problem:
        await recover(tmp_path, "", "ann", {}, now=NOW)

    assert problem.value.reason == "CLUSTER_KEY_MISSING"
    assert os.listdir(tmp_path) == []


async def test_a_running_server_keeps_its_sqlite(tmp_path: Path) -> None:
    """While a server has the directory, recovery says so and changes nothing."""
    ClusterKey.load_or_create(tmp_path / "cluster.key", {})
    store = open_store(tmp_path)
    try:
        with pytest.raises(errors.FailedPrecondition, match="Another server has"):
            await recover(tmp_path, "", "ann", {}, now=NOW)
    finally:
        await store.close()


async def test_beside_a_running_server_on_postgres(tmp_path: Path) -> None:
    """With the environment of a replica that goes on, and with its own directory locked, a token is made."""
    key = ClusterKey.load_or_create(tmp_path / "cluster.key", {})
    with postgres() as server:
        database = server.create()
        store = open_store(tmp_path, database)
        try:
            text = await recover(tmp_path, database, "ann", {}, now=NOW)

            caller = await TokenAuthenticator(store, key.derive("tokens"), lambda: NOW).caller(f"Bearer {text}")
        finally:
            await store.close()

    assert caller.role is Role.OPERATOR
