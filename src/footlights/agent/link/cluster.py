"""What the newest welcome said, kept for the time when there is no link."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import structlog

from footlights.linux.files import replace_file
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.agent.v1.agent_pb2 import Welcome

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
        after = seconds(welcome.abandon_after) if welcome.HasField("abandon_after") else DEFAULT_ABANDON_S
        return cls(welcome.cluster_id, after)


class KnownCluster:
    """The cluster of this agent, as the newest welcome said; kept over restarts."""

    def __init__(self, path: Path, node: str) -> None:
        self._path, self._node = path, node
        self._told = load(path)

    @property
    def mark(self) -> str:
        """What every process of this node carries; empty while the cluster is not known."""
        return mark(self._told.cluster_id, self._node) if self._told.cluster_id else ""

    @property
    def abandon_after_s(self) -> float:
        """How long launches that no viewer uses may go on without a link."""
        return self._told.abandon_after_s

    def learn(self, welcome: Welcome) -> None:
        """Take in what the control plane says."""
        told = Cluster.of(welcome)
        if told != self._told:
            self._told = told
            save(self._path, told)


def mark(cluster_id: str, node: str) -> str:
    """What every process carries that an agent of this node started: two agents of one machine must not meet."""
    return f"{cluster_id}/{node}"


def load(path: Path) -> Cluster:
    """Read what an earlier agent kept. An unreadable file counts as none: the next welcome says it again."""
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
    try:
        replace_file(path, json.dumps(asdict(cluster)).encode(), durable=False)
    except OSError as error:
        _log.warning("cluster_not_kept", path=str(path), error=str(error))
