"""A cluster key that is replaced under a running control plane.

Also `store.cluster.sealed_values`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from footlights.v1 import session_pb2
from footlights.v1.application_pb2 import Argument
from google.protobuf.struct_pb2 import Struct

from footlights.auth import secrets
from footlights.auth.secrets import ClusterKey
from footlights.control.credentials.cluster_keys import KeyRotation, token_key
from footlights.errors import FailedPrecondition, Internal
from footlights.store import open_store
from footlights.store.cluster import sealed_values
from footlights.supervision import Supervisor
from tests.control.harness import control, version

if TYPE_CHECKING:
    from pathlib import Path

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
        page = await world.call("StreamingService.ListSessions", session_pb2.ListSessionsRequest(limit=1), token)
        rotation = KeyRotation(world.store, key, Supervisor())
        await rotation.follow()

        secrets.rotate(path, now=datetime.now(UTC), after_s=0)
        await rotation.follow()

        assert key.fingerprint != ClusterKey(b"k" * 32).fingerprint
        again = session_pb2.ListSessionsRequest(limit=1, page_token=page.next_page_token)
        assert len((await world.call("StreamingService.ListSessions", again, token)).items) == 1
        assert len(secrets.retire(path, now=datetime.now(UTC), older_than_s=0)[1]) == 1
        await rotation.follow()
        assert (await world.get(made[0].session_id, token)).session_id == made[0].session_id
        found = await world.store.read(lambda tx: sealed_values.page(tx, sealed_values.COLUMNS[0], "", 10))
        assert {each for each, _ in found} == {each.session_id for each in made}
        assert all(b"hush" in key.box().open(sealed, each.encode()) for each, sealed in found)
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
