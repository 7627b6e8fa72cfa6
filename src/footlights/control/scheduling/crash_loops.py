"""The crash-loop guard: which applications have failed to start too often recently, everywhere or on one node.

It protects nodes from the next sessions; a session whose launch failed is ended or retried as always. Only failures to
start count that the application did not report itself: what it reports is mostly about its arguments, and one
user's broken stage must not block an application for all.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from footlights.lifecycle import BackoffPolicy, Block, Failure, blocked
from footlights.store.launches import launch_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.store import Transaction
    from footlights.store.launches.launch_rows import FailedStart

REASONS = ("", "EXITED_EARLY", "START_TIMEOUT", "START_FAILED", "SHIM_LOST", "PORT_TAKEN")
"""The reasons that an agent gives for a start that failed, as opposed to those that an application reports."""

ON_A_NODE = BackoffPolicy(failures=3, window_s=60, first_s=40, longest_s=900)
EVERYWHERE = BackoffPolicy(failures=6, window_s=60, first_s=40, longest_s=900)
MEMORY = timedelta(hours=1)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class CrashBlocks:
    """What is blocked now, and why."""

    versions: Mapping[Key, str] = field(default_factory=dict)
    """By (application, version)."""
    nodes: Mapping[Key, str] = field(default_factory=dict)
    """By (application, node)."""

    def of(self, application: str, version: str) -> dict[str, str]:
        """Return for one version: node -> why it is blocked there; under the empty name, everywhere."""
        found = {node: why for (name, node), why in self.nodes.items() if name == application}
        everywhere = self.versions.get((application, version))
        return found if everywhere is None else {"": everywhere, **found}


def load(tx: Transaction, *, now: datetime) -> CrashBlocks:
    """Read what has failed recently and say what is blocked."""
    failed = launch_rows.failed_starts(tx, REASONS, since=now - MEMORY)
    if len(failed) < ON_A_NODE.failures:
        return CrashBlocks()
    by_version: dict[Key, list[FailedStart]] = defaultdict(list)
    by_node: dict[Key, list[FailedStart]] = defaultdict(list)
    for each in failed:
        by_version[each.application, each.version].append(each)
        by_node[each.application, each.node].append(each)
    version_well: dict[Key, datetime] = {}
    node_well: dict[Key, datetime] = {}
    names = sorted({each.application for each in failed})
    for application, version, node, began in launch_rows.last_good_starts(tx, names, since=now - MEMORY):
        for well, key in ((version_well, (application, version)), (node_well, (application, node))):
            well[key] = max(began, well.get(key, began))
    return CrashBlocks(
        versions=_blocks(by_version, version_well, EVERYWHERE, now), nodes=_blocks(by_node, node_well, ON_A_NODE, now)
    )


def _blocks(
    failed: Mapping[Key, list[FailedStart]], well: Mapping[Key, datetime], policy: BackoffPolicy, now: datetime
) -> dict[Key, str]:
    found = {}
    for key, starts in failed.items():
        since = [each for each in starts if key not in well or each.ended > well[key]]
        ages = [Failure((now - each.began).total_seconds(), (now - each.ended).total_seconds()) for each in since]
        block = blocked(ages, policy)
        if block is not None:
            found[key] = _sentence(block)
    return found


def _sentence(block: Block) -> str:
    return f"failed {block.failures} times in {block.span_s:.0f} s; next try in {block.left_s:.0f} s"
