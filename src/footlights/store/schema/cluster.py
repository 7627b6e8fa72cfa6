"""The control plane itself: its replicas, the leases on work that one of them does for all, and counters."""

from typing import NamedTuple

from sqlalchemy import Sequence

from footlights.store.schema.columns import BigInt, JsonList, Key, Moment, Strings, metadata, table

REVISIONS = Sequence("revision_seq", metadata=metadata)
"""Where revisions come from on Postgres; SQLite counts in ``counter``."""


class CounterRow(NamedTuple):
    """Numbers that only grow, on SQLite; the cluster's id and the schema's floor on both engines."""

    name: Key
    value: BigInt
    text: str


class ReplicaRow(NamedTuple):
    """A control-plane process. Written by that process; removed by others once it is gone."""

    replica: Key
    roles: Strings
    peer_address: str
    """Where other replicas reach its gRPC, ``HOST:PORT``; where it has a listener for them, those of the release before
    do."""
    version: str
    beat: BigInt
    """Grows while it lives; observers measure with their own clocks for how long it has not."""
    brake: JsonList
    """Why its mass-loss guard is active: cause, message, microseconds since the epoch; empty while it is not."""
    started_time: Moment
    mutual_address: str | None
    """Where others reach the listener that it has for replicas alone, with certificates; None: it has none."""
    cluster_key: str | None
    """The fingerprint of the key that it seals with; None: it is of the release before."""


class LeaderLeaseRow(NamedTuple):
    """The lease on work that one replica does for all."""

    work: Key
    holder: str
    """A replica; empty where the lease is free."""
    token: BigInt
    """The fencing token. It grows at every claim: a write under an older one is refused."""


class ClusterSecretRow(NamedTuple):
    """A secret of the cluster itself, by name: the key of tokens' digests, the key of its certificate authority."""

    name: Key
    sealed: bytes
    """Sealed with the cluster's key."""
    created_time: Moment


COUNTER = table("counter", CounterRow)
REPLICA = table("replica", ReplicaRow)
LEADER_LEASE = table("work", LeaderLeaseRow)
CLUSTER_SECRET = table("cluster_secret", ClusterSecretRow)
