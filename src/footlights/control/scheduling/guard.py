"""The guard: what is left alone for a while because launches on or of it failed before they were ready, and why.

It protects the next sessions; one whose launch failed is ended or placed again as always. What counts against what is
in ``lifecycle.reasons``. Nothing is stored: all of it follows from the launches of the last hour, so every replica,
``explain`` and the list of nodes say the same.

* A node, as far as a launcher goes: at the first failure that is its own, whatever it should have launched; also where
  it fails several devices, or several versions that become ready elsewhere.
* A device that has refused several sessions; what has ended sessions on it is for ``quarantine``.
* A version on a node, or everywhere. What a user gave may be the cause of most such failures, so others are kept away
  only where different users gave different things; until then who gave it is, with what they gave.

What is left alone is tried again after a growing time by one session, and by others once that went well. Until it did,
nodes that have failed come last, and so do waiting sessions of what has failed: failing fast makes nothing preferred.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from footlights.control.scheduling.views import TimeApart
from footlights.lifecycle import BackoffPolicy, Failure, Fault, Retry, meaning
from footlights.lifecycle.blocking import last_block
from footlights.lifecycle.reasons import AT_ONCE, COUNTED, EVERYWHERE, SOON
from footlights.protocol import times
from footlights.store.launches import failed_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from footlights.store import Transaction
    from footlights.store.launches.failed_starts import FailedStart, LiveStart
    from footlights.v1 import node_pb2

K = TypeVar("K")

MEMORY = timedelta(hours=1)
DOUBTED_S = 600.0
"""A node that has failed comes last for so long, unless something becomes ready on it."""
SEVERAL = 2
"""So many devices, versions that are well elsewhere, users, or things that they gave, are no accident."""
MOST_SHOWN = 20
"""How much of what is left alone of a node the API shows."""
NODES_WITHOUT = 3
"""A version whose needs so many nodes lack is at fault itself."""


class Scope(NamedTuple):
    """What is left alone. Members that are None are any."""

    node: str | None = None
    launcher: str | None = None
    version: tuple[str, str] | None = None
    """(application, version)."""
    given: str | None = None
    username: str | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something is left alone."""

    reason: str
    """Of the last failure."""
    message: str
    failures: int
    span_s: float
    left_s: float
    """Until it may be tried; 0 where that is now."""
    tried: bool
    """Whether a session tries it now."""

    @property
    def keeps_out(self) -> bool:
        """Whether nothing is placed there now; otherwise one session is."""
        return self.left_s > 0 or self.tried

    @property
    def text(self) -> str:
        """All of it in one line."""
        times = f"failed {self.failures} times in {self.span_s:.0f} s" if self.failures > 1 else "failed"
        following = "a session tries it now" if self.tried else f"next try in {self.left_s:.0f} s"
        return f"{times}; {following}; last: {self.why}"

    @property
    def why(self) -> str:
        """The last failure."""
        return f"{self.reason}: {self.message}" if self.reason else self.message


@dataclass(frozen=True, slots=True)
class KeptAway:
    """What a session is kept away from."""

    crashes: Mapping[str, str] = field(default_factory=dict)
    """Node -> why its version is not tried there now; under the empty name, everywhere."""
    unwell: Mapping[str, str] = field(default_factory=dict)
    """Node -> why nothing with its launcher is."""
    back_s: Mapping[str, float] = field(default_factory=dict)
    """Node -> in how many seconds these may be tried; under the empty name, everywhere."""
    doubted: frozenset[str] = frozenset()
    """Nodes that come last."""
    trials: Mapping[str, tuple[Scope, ...]] = field(default_factory=dict)
    """Node -> what a session would be the only one to try there; under the empty name, anywhere."""


@dataclass(slots=True)
class Guard:
    """What is left alone now, and why."""

    holds: Mapping[Scope, Hold] = field(default_factory=dict)
    doubted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Launcher -> nodes that have failed and were not well since."""
    doubtful: frozenset[Scope] = frozenset()
    """Versions, and what users gave them, that have failed and were not ready since."""
    _by_version: Mapping[tuple[tuple[str, str], str | None], list[Scope]] = field(init=False)
    """By version and what was given: one user may give very many things that fail."""
    _by_launcher: Mapping[str, list[Scope]] = field(init=False)
    _trying: set[Scope] = field(default_factory=set)
    """What is tried by a session that this was not told of yet."""

    def __post_init__(self) -> None:
        by_version: defaultdict[tuple[tuple[str, str], str | None], list[Scope]] = defaultdict(list)
        by_launcher: defaultdict[str, list[Scope]] = defaultdict(list)
        for scope in self.holds:
            if scope.version is not None:
                by_version[scope.version, scope.given].append(scope)
            elif scope.launcher is not None:
                by_launcher[scope.launcher].append(scope)
        self._by_version, self._by_launcher = by_version, by_launcher

    def of(self, version: tuple[str, str], launcher: str, username: str, given: str | None) -> KeptAway:
        """Return what a session of a version is kept away from; ``given`` None is without what a user gave it."""
        crashes: dict[str, str] = {}
        unwell: dict[str, str] = {}
        trials: dict[str, tuple[Scope, ...]] = {}
        back_s: dict[str, float] = {}
        for scope in (*self._of_version(version, given), *self._by_launcher.get(launcher, ())):
            if scope.username not in (None, username):
                continue
            hold, node = self.holds[scope], scope.node or ""
            if hold.keeps_out or scope in self._trying:
                (crashes if scope.version else unwell)[node] = hold.text
                if hold.left_s > 0:
                    back_s[node] = max(hold.left_s, back_s.get(node, 0.0))
            else:
                trials[node] = (*trials.get(node, ()), scope)
        return KeptAway(crashes, unwell, back_s, self.doubted.get(launcher, frozenset()), trials)

    def begin(self, trials: Mapping[str, tuple[Scope, ...]], node: str) -> None:
        """Note that a session which was placed on a node is the one that tries what was left alone."""
        self._trying.update(trials.get(node, ()), trials.get("", ()))

    def is_doubtful(self, version: tuple[str, str], username: str, given: str | None) -> bool:
        """Return whether a session is of what has failed: it waits behind the others."""
        if not self.doubtful:
            return False
        mine = Scope(version=version, given=given, username=username)
        return Scope(version=version) in self.doubtful or mine in self.doubtful

    def mark(self, version: tuple[str, str], username: str, given: str | None) -> tuple[str, str] | None:
        """Return what tells a session from others of its version that may be kept away from other things than it is."""
        if given is None:
            return None
        mine = any(scope.username in (None, username) for scope in self._by_version.get((version, given), ()))
        return (username, given) if mine else None

    def _of_version(self, version: tuple[str, str], given: str | None) -> list[Scope]:
        found = [*self._by_version.get((version, None), ())]
        return found if given is None else [*found, *self._by_version.get((version, given), ())]

    def devices(self) -> dict[tuple[str, str], TimeApart]:
        """Return which devices are left alone, as (node, uuid), why, and for how long."""
        return {
            (scope.node, scope.device): TimeApart(hold.text, hold.left_s)
            for scope, hold in self.holds.items()
            if scope.node is not None and scope.device is not None and hold.left_s > 0
        }

    def of_nodes(self) -> dict[str, list[tuple[Scope, Hold]]]:
        """Return what is left alone of each node, the longest first."""
        found: defaultdict[str, list[tuple[Scope, Hold]]] = defaultdict(list)
        for scope, hold in sorted(self.holds.items(), key=lambda each: -each[1].left_s):
            if scope.node is not None:
                found[scope.node].append((scope, hold))
        return found

    def unwell_nodes(self) -> frozenset[str]:
        """Return the nodes whose own fault a hold is, and not that of a version or of who gave it something."""
        return frozenset(
            scope.node
            for scope, hold in self.holds.items()
            if scope.node is not None
            and (scope.launcher is not None or meaning(hold.reason).fault is Fault.PLACE)
            and Scope(version=scope.version) not in self.holds
        )


def show(guard: Guard, nodes: Iterable[node_pb2.Node], *, now: datetime) -> None:
    """Add to node messages what is left alone of them: nothing that is one user's, except what the node lacks."""
    holds = guard.of_nodes()
    for message in nodes:
        shown: dict[tuple[object, ...], tuple[Scope, Hold]] = {}
        for scope, hold in holds.get(message.node, ()):
            if scope.given is None or meaning(hold.reason).fault is Fault.PLACE:
                shown.setdefault((hold.reason, scope.launcher, scope.version, scope.device), (scope, hold))
        for scope, hold in list(shown.values())[:MOST_SHOWN]:
            application, version = scope.version or ("", "")
            message.back_offs.add(
                reason=hold.reason,
                message=meaning(hold.reason).says if scope.given is not None else hold.message,
                launcher=scope.launcher or "",
                application=application,
                application_version=version,
                device=scope.device or "",
                failure_count=hold.failures,
                until_time=times.timestamp(now + timedelta(seconds=hold.left_s)),
                trying=hold.tried,
            )


def load(tx: Transaction, *, now: datetime) -> Guard:
    """Read what has failed recently and say what is left alone."""
    since = now - MEMORY
    failed = failed_starts.failed(tx, COUNTED, since=since)
    if not failed:
        return Guard()
    return _Evidence(tx, failed, now).guard()


def unwell_nodes(tx: Transaction, now: datetime) -> frozenset[str]:
    """Return the nodes that are unwell."""
    return load(tx, now=now).unwell_nodes()


class _Evidence:
    """Failures and what went well, by what they say something of."""

    def __init__(self, tx: Transaction, failed: Sequence[FailedStart], now: datetime) -> None:
        since = now - MEMORY
        self._now, self._failed = now, failed
        nodes, names = {each.node for each in failed}, {each.application for each in failed}
        self._live = failed_starts.live(tx, nodes, names, since=since)
        self._ready: dict[Scope, datetime] = {}
        """When the last launch that became ready began."""
        self._up: dict[Scope, datetime] = {}
        """The same of the last whose application ran: what is the node's to do was done."""
        self._ready_on: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for (node, launcher, device), began in failed_starts.ready_nodes(tx, nodes, since=since).items():
            self._well(began, Scope(node, launcher), Scope(node, device=device))
        for good in failed_starts.ready_versions(tx, names, since=since):
            version = good.application, good.version
            self._ready_on[version].add(good.node)
            self._well(good.began, Scope(version=version), Scope(good.node, version=version))
        by = {each.username for each in failed if meaning(each.reason).given}
        for good in failed_starts.ready_inputs(tx, names, by, since=since) if by else ():
            of = Scope(None, None, (good.application, good.version), good.given, good.username)
            self._well(good.began, *_with_and_without(of, good.node))
        for live in self._live:
            if live.up:
                self._ran(live)
        for each in failed:
            if meaning(each.reason).fault is Fault.VERSION:
                self._ran(each)

    def guard(self) -> Guard:
        holds: dict[Scope, Hold] = {}
        doubted: defaultdict[str, set[str]] = defaultdict(set)
        doubtful: set[Scope] = set()
        for (node, launcher), found in _by(self._failed, lambda each: (each.node, each.launcher)).items():
            scope = Scope(node, launcher)
            self._node(holds, scope, found)
            if any(self._doubts(each, scope) for each in found):
                doubted[launcher].add(node)
        refused = [each for each in self._failed if _is(each, Fault.DEVICE, SOON)]
        for (node, device), found in _by(refused, lambda each: (each.node, each.device)).items():
            scope = Scope(node, device=device)
            self._hold(holds, scope, self._since(self._ready, scope, found), SOON)
        blamed = [each for each in self._failed if meaning(each.reason).fault in (Fault.PLACE, Fault.VERSION)]
        for version, found in _by(blamed, lambda each: (each.application, each.version)).items():
            self._version(holds, version, found)
            doubtful.update(self._doubtful(version, found))
        return Guard(holds, {name: frozenset(nodes) for name, nodes in doubted.items()}, frozenset(doubtful))

    def _node(self, holds: dict[Scope, Hold], scope: Scope, found: Sequence[FailedStart]) -> None:
        """Hold a launcher of a node."""
        own = self._since(self._up, scope, found)
        at_once = [each for each in own if _is(each, Fault.NODE, AT_ONCE)]
        devices = [each for each in own if _is(each, Fault.DEVICE, AT_ONCE) and _moves_on(each)]
        if len({each.device for each in devices}) >= SEVERAL:
            at_once += devices
        # Versions that are well elsewhere.
        elsewhere = [
            each
            for each in self._since(self._ready, scope, found)
            if meaning(each.reason).fault in (Fault.PLACE, Fault.VERSION)
            and self._ready_on[each.application, each.version] - {each.node}
        ]
        if len({(each.application, each.version) for each in elsewhere}) >= SEVERAL and _several_users(elsewhere):
            at_once += elsewhere
        self._hold(holds, scope, at_once, AT_ONCE)
        self._hold(holds, scope, [each for each in own if _is(each, Fault.NODE, SOON)], SOON)

    def _version(self, holds: dict[Scope, Hold], version: tuple[str, str], found: Sequence[FailedStart]) -> None:
        """Hold a version on a node and everywhere: for everybody, for what was given, or for who gave it."""
        sorts = [(Scope(version=version), found)]
        for given, of_given in _by([each for each in found if _may_be_given(each)], lambda each: each.given).items():
            sorts.append((Scope(version=version, given=given), of_given))
            for username, mine in _by(of_given, lambda each: each.username).items():
                sorts.append((Scope(version=version, given=given, username=username), mine))
        for scope, of_sort in sorts:
            for node, there in _by(of_sort, lambda each: each.node).items():
                for fault, policy, well in (
                    (Fault.PLACE, AT_ONCE, self._up),
                    (Fault.VERSION, SOON, self._ready),
                ):
                    on_node = scope._replace(node=node)
                    some = [each for each in self._since(well, on_node, there) if meaning(each.reason).fault is fault]
                    self._hold(holds, on_node, _shared(on_node, some), policy)
            crashed = [each for each in self._since(self._ready, scope, of_sort) if _is(each, Fault.VERSION, SOON)]
            if len({each.node for each in crashed}) >= SEVERAL:
                self._hold(holds, scope, _shared(scope, crashed), EVERYWHERE)
            lacking = [each for each in self._since(self._up, scope, of_sort) if _is(each, Fault.PLACE, AT_ONCE)]
            if len({each.node for each in lacking}) >= NODES_WITHOUT:
                self._hold(holds, scope, _shared(scope, lacking), AT_ONCE)

    def _hold(
        self,
        holds: dict[Scope, Hold],
        scope: Scope,
        found: Sequence[FailedStart],
        policy: BackoffPolicy,
    ) -> None:
        ages = [Failure(self._age(each.began), self._age(each.ended)) for each in found]
        block = last_block(ages, policy)
        if block is None:
            return
        last = max(found, key=lambda each: each.ended)
        left = max(0.0, block.left_s)
        tried = left == 0 and any(live.began >= last.ended for live in self._live if _concerns(scope, live))
        before = holds.get(scope)
        if before is None or (before.left_s, before.tried) < (left, tried):
            # What a user gave may be in the message: others are not told.
            mine = scope.username is not None or not _may_be_given(last)
            message = last.message if mine and last.message else meaning(last.reason).says
            holds[scope] = Hold(last.reason, message, block.failures, block.span_s, left, tried)

    def _doubts(self, each: FailedStart, scope: Scope) -> bool:
        if self._age(each.ended) > DOUBTED_S or meaning(each.reason).retry is Retry.FREE:
            return False
        return scope not in self._ready or each.ended > self._ready[scope]

    def _doubtful(self, version: tuple[str, str], found: Sequence[FailedStart]) -> Iterable[Scope]:
        everybody = Scope(version=version)
        if _several_users(self._since(self._ready, everybody, found)):
            yield everybody
        for (given, username), mine in _by(found, lambda each: (each.given, each.username)).items():
            scope = Scope(version=version, given=given, username=username)
            if self._since(self._ready, scope, mine):
                yield scope

    def _ran(self, start: FailedStart | LiveStart) -> None:
        version = start.application, start.version
        of = Scope(version=version, given=start.given, username=start.username)
        scopes = (
            Scope(start.node, start.launcher),
            Scope(version=version),
            Scope(start.node, version=version),
            *_with_and_without(of, start.node),
        )
        for scope in scopes:
            self._up[scope] = max(start.began, self._up.get(scope, start.began))

    def _well(self, began: datetime, *scopes: Scope) -> None:
        for scope in scopes:
            self._ready[scope] = max(began, self._ready.get(scope, began))
            self._up[scope] = max(began, self._up.get(scope, began))

    @staticmethod
    def _since(well: Mapping[Scope, datetime], scope: Scope, found: Iterable[FailedStart]) -> list[FailedStart]:
        """Return the failures that ended after the last launch that was well had begun."""
        return [each for each in found if scope not in well or each.ended > well[scope]]

    def _age(self, moment: datetime) -> float:
        return (self._now - moment).total_seconds()


def _by(found: Iterable[FailedStart], key: Callable[[FailedStart], K]) -> dict[K, list[FailedStart]]:
    groups: defaultdict[K, list[FailedStart]] = defaultdict(list)
    for each in found:
        groups[key(each)].append(each)
    return groups


def _is(each: FailedStart, fault: Fault, policy: BackoffPolicy) -> bool:
    what = meaning(each.reason)
    return what.fault is fault and what.back_off is policy


def _moves_on(each: FailedStart) -> bool:
    return meaning(each.reason).retry is Retry.ELSEWHERE


def _may_be_given(each: FailedStart) -> bool:
    return meaning(each.reason).given


def _several_users(found: Iterable[FailedStart]) -> bool:
    return len({each.username for each in found}) >= SEVERAL


def _shared(scope: Scope, found: Sequence[FailedStart]) -> Sequence[FailedStart]:
    """Return the failures that count against a scope: all, where they do not come from one user or one thing given."""
    if scope.username is not None:
        return found
    given = [each for each in found if _may_be_given(each)]
    several = _several_users(given) and (scope.given is not None or len({each.given for each in given}) >= SEVERAL)
    return found if several else [each for each in found if not _may_be_given(each)]


def _with_and_without(scope: Scope, node: str) -> tuple[Scope, ...]:
    """Return a user's scope and that of everybody who gave the same, on a node and everywhere."""
    everybody = scope._replace(username=None)
    return (scope, everybody, scope._replace(node=node), everybody._replace(node=node))


def _concerns(scope: Scope, live: LiveStart) -> bool:
    return (
        scope.node in (None, live.node)
        and scope.launcher in (None, live.launcher)
        and scope.version in (None, (live.application, live.version))
        and scope.given in (None, live.given)
        and scope.username in (None, live.username)
    )
