"""Fleet metrics: sessions, slots and nodes, counted in the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from footlights.control import stored
from footlights.protocol import enums
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.sessions import listing
from footlights.v1 import node_pb2

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from footlights.store import Transaction


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """Numbers of one moment."""

    sessions: Mapping[tuple[str, str], int]
    """Those that have not ended, by (state, application)."""
    slots: Mapping[tuple[str, str], int]
    """By (kind of device, ``leased``, ``free`` or ``unusable``)."""
    nodes: Mapping[str, int]
    """By state."""


def fleet(tx: Transaction, *, unwell: Collection[str]) -> FleetCounts:
    """Count sessions, slots and nodes, of which some are unwell."""
    leased = Counter((lease.node, lease.device) for lease in launch_rows.live_leases(tx))
    slots: Counter[tuple[str, str]] = Counter()
    for node, uuid, count, sick, raw in node_rows.capacities(tx):
        kind = _kind(raw)
        held = leased[(node, uuid)]
        slots[(kind, "leased")] += held
        slots[(kind, "unusable" if sick else "free")] += count - held
    busy = {node for node, _ in leased}
    states = Counter(
        stored.node_state(row, busy=row.node in busy, unwell=row.node in unwell) for row in node_rows.standings(tx)
    )
    named = {enums.name_of(node_pb2.Node.State, state): count for state, count in states.items()}
    return FleetCounts(listing.state_counts(tx), dict(slots), named)


def _kind(reading: bytes) -> str:
    try:
        return _KINDS.get(node_pb2.Device.FromString(reading).kind, _UNKNOWN)
    except DecodeError:
        # Its slots count all the same.
        return _UNKNOWN


_UNKNOWN = "KIND_UNSPECIFIED"
_KINDS = {number: name for name, number in node_pb2.Device.Kind.items()}
