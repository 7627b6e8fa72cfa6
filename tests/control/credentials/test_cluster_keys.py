"""A cluster key that is replaced under a running control plane.

Also `store.cluster.sealed_values`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from footlights.v1 import session_pb2
from footlights.v1.application_pb2 import Argument
from google.protobuf.struct_pb2 import Struct

from footlights.auth import secrets
from footlights.auth.secrets import ClusterKey
from footlights.control.credentials.cluster_keys import KeyRotation, check_unused, token_key
from footlights.control.dispatch.node_identities import sealed_for
from footlights.errors import FailedPrecondition, Internal
from footlights.store import Store, open_store
from footlights.store.cluster import replica_rows, sealed_values
from footlights.store.cluster.replica_rows import PeerAddress
from footlights.store.nodes import identities
from footlights.supervision import Supervisor
from tests.control.harness import control, version
from tests.store.databases import postgres

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def _ring(path: Path, key: bytes) -> ClusterKey:
    """Return a ring in a file that begins with one key."""
    path.write_text(secrets.RingKey(key).text + "\n")
    path.chmod(0o600)
    return ClusterKey.load_or_create(path, {})


async def test_a_key_is_replaced_under_a_running_control_plane(tmp_path: Path) -> None:
    """Tokens, page tokens and sealed arguments of before stay good; retired, the old key opens nothing any more."""
    path = tmp_path / "cluster.key"
    key = _ring(path, b"k" * 32)
    async with control(tmp_path / "data", key=key) as world:
        secret = Argument(name="password", type=Argument.STRING, secret=True)
        await world.apply(version(arguments=[secret]))
        token = await world.token()
        arguments = Struct()
        arguments["password"] = "hush"
        made = [await world.create(token, application_arguments=arguments) for _ in range(3)]
        await world.rest("PUT", "/v1/profiles/small", json={"secrets": {"password": "hush too"}})
        page = await world.call("StreamingService.ListSessions", session_pb2.ListSessionsRequest(limit=1), token)
        rotation = KeyRotation(world.store, key, Supervisor())
        await rotation.follow()

        secrets.rotate(path, now=datetime.now(UTC), after_s=0)
        await rotation.follow()

        assert key.fingerprint != ClusterKey(b"k" * 32).fingerprint
        again = session_pb2.ListSessionsRequest(limit=1, page_token=page.next_page_token)
        assert len((await world.call("StreamingService.ListSessions", again, token)).items) == 1
        assert len(secrets.retire(path, now=datetime.now(UTC), older_than_s=0, check=lambda _: None)[1]) == 1
        await rotation.follow()
        assert (await world.get(made[0].session_id, token)).session_id == made[0].session_id
        found = await world.store.read(lambda tx: sealed_values.page(tx, sealed_values.COLUMNS[0], "", 10))
        assert {each for each, _ in found} == {each.session_id for each in made}
        assert all(b"hush" in key.box().open(sealed, each.encode()) for each, sealed in found)
        kept = sealed_values.COLUMNS[-1]
        [(name, sealed)] = await world.store.read(lambda tx: sealed_values.page(tx, kept, "", 10))
        assert b"hush too" in key.box().open(sealed, kept.bound_to(name))
        with pytest.raises(Internal):
            ClusterKey(b"k" * 32).box().open(found[0][1], found[0][0].encode())


async def test_a_damaged_value_keeps_no_other_under_the_old_key(tmp_path: Path) -> None:
    """It stays as it is; the rest is sealed again, and the database is that of the new key."""
    store = open_store(tmp_path, "")
    try:
        old, new = ClusterKey(bytes(32)), ClusterKey(bytes(range(32)))
        digests = await token_key(store, old, now=NOW)
        await store.write(lambda tx: sealed_values.keep_secret(tx, "damaged", b"nonsense", now=NOW))

        await KeyRotation(store, ClusterKey(bytes(range(32)), bytes(32)), Supervisor()).follow()

        assert await token_key(store, new, now=NOW) == digests
        assert await store.read(lambda tx: sealed_values.secret(tx, "damaged")) == b"nonsense"
    finally:
        await store.close()


async def test_a_ring_that_loses_the_key_of_the_database_changes_nothing(tmp_path: Path) -> None:
    """Put over the old one by mistake; once that is back, everything is read again."""
    path = tmp_path / "cluster.key"
    key = _ring(path, bytes(32))
    store = open_store(tmp_path, "")
    try:
        digests = await token_key(store, key, now=NOW)
        rotation = KeyRotation(store, key, Supervisor())
        await rotation.follow()

        path.write_text(secrets.RingKey(bytes(range(32))).text + "\n")
        with pytest.raises(FailedPrecondition) as caught:
            await rotation.follow()

        assert caught.value.reason == "CLUSTER_KEY_DIFFERS"
        assert await token_key(store, ClusterKey(bytes(32)), now=NOW) == digests
    finally:
        await store.close()


async def test_a_database_that_lacks_the_ring_is_refused(tmp_path: Path) -> None:
    """A server starts with any ring that has the key of the database, and with no other."""
    store = open_store(tmp_path, "")
    try:
        old, new = bytes(32), bytes(range(32))
        digests = await token_key(store, ClusterKey(old), now=NOW)
        assert digests == ClusterKey(old).derive("tokens")
        ring = ClusterKey(new, old)
        assert await token_key(store, ring, now=NOW) == digests
        with pytest.raises(FailedPrecondition) as caught:
            await token_key(store, ClusterKey(new), now=NOW)
        assert caught.value.reason == "CLUSTER_KEY_DIFFERS"

        await KeyRotation(store, ring, Supervisor()).follow()

        assert await token_key(store, ClusterKey(new), now=NOW) == digests
    finally:
        await store.close()


async def test_a_key_that_the_database_needs_is_not_removed(tmp_path: Path) -> None:
    """Neither the one that it is sealed with, nor one that only a single value needs; with the server running."""
    path = tmp_path / "cluster.key"
    key = _ring(path, bytes(32))
    old = key.ring[0]
    store = open_store(tmp_path, "")
    try:
        await token_key(store, key, now=NOW)
        rotation = KeyRotation(store, key, Supervisor())
        await rotation.follow()
        secrets.rotate(path, now=NOW, after_s=0)

        unused = partial(check_unused, tmp_path, "")
        with pytest.raises(FailedPrecondition, match="the database is sealed with it") as caught:
            await asyncio.to_thread(secrets.retire, path, now=NOW, older_than_s=0, check=unused)
        assert (caught.value.reason, caught.value.metadata) == ("CLUSTER_KEY_IN_USE", {"fingerprint": old.fingerprint})
        await rotation.follow()
        late = ClusterKey(old.key).box().seal(b"late", b"late")
        await store.write(lambda tx: sealed_values.keep_secret(tx, "late", late, now=NOW))
        with pytest.raises(FailedPrecondition, match="1 secrets in the database are still sealed with it"):
            await asyncio.to_thread(secrets.retire, path, now=NOW, older_than_s=0, check=unused)
        assert len(secrets.read_ring(path)) == 2

        await KeyRotation(store, key, Supervisor()).follow()
        assert await asyncio.to_thread(secrets.retire, path, now=NOW, older_than_s=0, check=unused) == (
            (key.ring[0],),
            (old,),
        )
    finally:
        await store.close()


async def test_a_key_that_a_running_server_has_alone_is_not_removed() -> None:
    """One that was not given the new ring yet goes on sealing with the old one; one that is gone does not matter."""
    with postgres() as server, TemporaryDirectory() as directory:
        database, old = server.create(), secrets.RingKey(bytes(32))
        store = open_store(Path(directory), database)
        try:
            await token_key(store, ClusterKey(bytes(32)), now=NOW)
            await KeyRotation(store, ClusterKey(bytes(range(32)), bytes(32)), Supervisor()).follow()
            for name in ("gone", "behind"):
                join = partial(replica_rows.join, roles=["api"], address=PeerAddress(), version="1", now=NOW)
                await store.write(lambda tx: join(tx, name))  # noqa: B023
                await _beat(store, name, old.fingerprint)
            looking = asyncio.create_task(asyncio.to_thread(check_unused, Path(directory), database, [old], look_s=1))
            while not looking.done():
                await _beat(store, "behind", old.fingerprint)
            with pytest.raises(FailedPrecondition, match="1 running servers know no newer one, behind among them"):
                await looking
            await _beat(store, "behind", "another")
            await asyncio.to_thread(check_unused, Path(directory), database, [old], look_s=0.1)
        finally:
            await store.close()


async def _beat(store: Store, name: str, key: str) -> None:
    await store.write(lambda tx: replica_rows.beat(tx, name, cluster_key=key))


async def test_an_invitation_outlives_the_key_that_it_was_made_under(tmp_path: Path) -> None:
    """It is sealed again like everything else, whoever rotates within its day."""
    store = open_store(tmp_path, "")
    try:
        old = ClusterKey(bytes(32))
        await token_key(store, old, now=NOW)
        sealed = old.box().seal(b"proof", sealed_for("an id"))
        await store.write(lambda tx: identities.invite(tx, "gpu-1", "an id", sealed, expire_time=NOW))

        await KeyRotation(store, ClusterKey(bytes(range(32)), bytes(32)), Supervisor()).follow()

        row = await store.read(lambda tx: identities.get(tx, "gpu-1"))
        assert row is not None
        assert row.invitation_key is not None
        assert ClusterKey(bytes(range(32))).box().open(row.invitation_key, sealed_for("an id")) == b"proof"
    finally:
        await store.close()
