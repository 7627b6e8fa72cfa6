"""The tables, and the records that their rows are read as.

A record ``XRow`` is a named tuple, which cannot be changed; ``table`` declares with SQLModel the table ``X`` of its
members, on which statements are written. Times are microseconds since the epoch in UTC.
"""

from footlights.store.schema.catalog import (
    APPLICATION,
    PROFILE,
    RELEASE,
    RELEASE_CHANGE,
    REMEMBERED_CALL,
    TOKEN,
    VERSION,
    ApplicationRow,
    ProfileRow,
    ReleaseChangeRow,
    ReleaseRow,
    RememberedCallRow,
    TokenRow,
    VersionRow,
)
from footlights.store.schema.cluster import (
    CLUSTER_SECRET,
    COUNTER,
    LEADER_LEASE,
    REPLICA,
    REVISIONS,
    ClusterSecretRow,
    LeaderLeaseRow,
    ReplicaRow,
)
from footlights.store.schema.columns import Instant, RowT, metadata, microseconds, moment, table_of
from footlights.store.schema.fleet import DEVICE, DEVICE_EVENT, NODE, WARM, DeviceEventRow, DeviceRow, NodeRow
from footlights.store.schema.launches import LAUNCH, LEASE, LaunchRow, LeaseRow
from footlights.store.schema.sessions import (
    REMOVAL,
    REQUEST_KEY,
    SESSION,
    SESSION_LABEL,
    RemovalRow,
    RequestKeyRow,
    SessionRow,
)

__all__ = [
    "APPLICATION",
    "CLUSTER_SECRET",
    "COUNTER",
    "DEVICE",
    "DEVICE_EVENT",
    "LAUNCH",
    "LEADER_LEASE",
    "LEASE",
    "NODE",
    "PROFILE",
    "RELEASE",
    "RELEASE_CHANGE",
    "REMEMBERED_CALL",
    "REMOVAL",
    "REPLICA",
    "REQUEST_KEY",
    "REVISIONS",
    "SESSION",
    "SESSION_LABEL",
    "TOKEN",
    "VERSION",
    "WARM",
    "ApplicationRow",
    "ClusterSecretRow",
    "DeviceEventRow",
    "DeviceRow",
    "Instant",
    "LaunchRow",
    "LeaderLeaseRow",
    "LeaseRow",
    "NodeRow",
    "ProfileRow",
    "ReleaseChangeRow",
    "ReleaseRow",
    "RememberedCallRow",
    "RemovalRow",
    "ReplicaRow",
    "RequestKeyRow",
    "RowT",
    "SessionRow",
    "TokenRow",
    "VersionRow",
    "metadata",
    "microseconds",
    "moment",
    "table_of",
]
