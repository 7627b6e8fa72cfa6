"""What the newest welcome said, kept for the time when there is no link."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.v1.agent_pb2 import Welcome

DEFAULT_ABANDON_S = 1800.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster the node belongs to. ``cluster_id`` is empty until it was welcomed for the first time."""

    cluster_id: str = ""
    abandon_after_s: float = DEFAULT_ABANDON_S

    @classmethod
    def of(cls, welcome: Welcome) -> Cluster:
        """Take it from a welcome."""
        after = welcome.abandon_after.ToNanoseconds() / 1e9 if welcome.HasField("abandon_after") else DEFAULT_ABANDON_S
        return cls(welcome.cluster_id, after)


def load(path: Path) -> Cluster:
    """Read what an earlier agent was told. What cannot be read is as if nothing was told: the next welcome says it."""
    try:
        found = json.loads(path.read_bytes())
        return Cluster(str(found["cluster_id"]), float(found["abandon_after_s"]))
    except FileNotFoundError:
        return Cluster()
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("cluster_unreadable", path=str(path), error=str(error))
        return Cluster()


def save(path: Path, cluster: Cluster) -> None:
    """Keep it. Blocks on the disk; not synced, for losing it costs nothing that the next welcome does not mend."""
    temporary = path.with_suffix(".new")
    try:
        temporary.write_text(json.dumps(asdict(cluster)), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        _log.warning("cluster_not_kept", path=str(path), error=str(error))
